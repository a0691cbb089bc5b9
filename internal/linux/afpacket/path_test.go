package afpacket

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// BenchmarkPath takes frames from one guest to another in one thread and counts its
// CPU time per frame, by stage: the guest writes, the port receives, the other sends,
// its guest reads. What a change does to the kernel's work shows here even on a busy
// machine; what it does to sleeping and waking shows in bench/peers alone. One CPU
// (taskset) gives the least spread.
func BenchmarkPath(b *testing.B) {
	super, tso := tuntest.TCP4(60000)
	for _, c := range []struct {
		wire    []byte
		offload port.Offload
		batch   int
	}{
		{tuntest.Ethernet(1, 64), port.Offload{}, 1},
		{tuntest.Ethernet(1, 64), port.Offload{}, 32},
		{tuntest.Ethernet(1, 1514), port.Offload{}, 32},
		{super, tso, 8},
	} {
		b.Run(fmt.Sprintf("%dB/batch=%d", len(c.wire), c.batch), func(b *testing.B) {
			testenv.NewNetns(b).Do(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				from, to := tap(b, "vm0").queues[0], tap(b, "vm1").queues[0]
				sender, receiver := tuntest.Boot(b, "vm0", tuntest.TSO), tuntest.Boot(b, "vm1", tuntest.TSO)
				frames := make([]port.Frame, port.BatchSize)
				out := make([]port.Out, port.BatchSize)
				var spent [4]time.Duration
				for b.Loop() {
					at := threadTime(b)
					lap := func(stage int) {
						now := threadTime(b)
						spent[stage] += now - at
						at = now
					}
					for range c.batch {
						if err := sender.Send(c.wire, c.offload); err != nil {
							b.Fatal(err)
						}
					}
					lap(0)
					for left := c.batch; left > 0; {
						n, err := from.Recv(frames)
						if err != nil {
							b.Fatal(err)
						}
						lap(1)
						for i := range n {
							out[i] = port.Out{Frame: &frames[i]}
						}
						to.Send(out[:n])
						from.Release()
						lap(2)
						left -= n
					}
					for range c.batch {
						if _, _, err := receiver.Recv(patience); err != nil {
							b.Fatal(err)
						}
					}
					lap(3)
				}
				for i, stage := range []string{"write", "recv", "send", "read"} {
					b.ReportMetric(float64(spent[i].Nanoseconds())/float64(b.N*c.batch), stage+"-ns/frame")
				}
			})
		})
	}
}

// threadTime is the CPU time of the calling thread.
func threadTime(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}
