package afpacket

import (
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// TestQueues: what a guest sends by one of its queues comes by one queue of the
// port, the same each time and in order, and each queue of the port can send.
func TestQueues(t *testing.T) {
	testenv.NewNetns(t).Do(func() {
		const queues, each = 4, 200
		if err := tuntap.Create("vm0", "", tuntap.Access{Owner: 0, Group: tuntap.Anyone}, true); err != nil {
			t.Fatal(err)
		}
		guests := tuntest.BootQueues(t, "vm0", tuntest.TSO, queues)
		l, err := link.ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.SetUp(true); err != nil {
			t.Fatal(err)
		}
		p, err := Open(Config{Ifindex: l.Index, Direct: true, Queues: queues})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()

		type arrival struct {
			queue, from int
			number      byte
		}
		arrivals := make(chan arrival, queues*each)
		for i, q := range p.Queues() {
			go func() {
				frames := make([]port.Frame, port.BatchSize)
				for {
					n, err := q.Recv(frames)
					if err != nil {
						return
					}
					for _, f := range frames[:n] {
						if tuntest.IsEthernet(f.Data) && len(f.Data) >= 60 {
							arrivals <- arrival{i, int(f.Data[50]), f.Data[51]}
						}
					}
					q.Release()
				}
			}()
		}
		for n := range each {
			for g, guest := range guests {
				b := tuntest.Ethernet(0, 60)
				b[50], b[51] = byte(g), byte(n)
				if err := guest.Send(b, port.Offload{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		by, next := map[int]int{}, map[int]byte{}
		timeout := time.After(patience)
		for range queues * each {
			select {
			case a := <-arrivals:
				if q, seen := by[a.from]; seen && q != a.queue {
					t.Fatalf("frames of the guest's queue %d come by queues %d and %d", a.from, q, a.queue)
				}
				by[a.from] = a.queue
				if a.number != next[a.from] {
					t.Fatalf("queue %d: frame %d came where %d was due", a.from, a.number, next[a.from])
				}
				next[a.from]++
			case <-timeout:
				t.Fatalf("frames are missing; next are %v", next)
			}
		}
		used := map[int]bool{}
		for _, q := range by {
			used[q] = true
		}
		if len(used) != queues {
			t.Errorf("the guest's %d queues come by %d of the port's", queues, len(used))
		}

		for i, q := range p.Queues() {
			f := new(port.Frame)
			f.SetStripped(tuntest.Ethernet(uint32(i), 60), 0)
			out := []port.Out{{Frame: f}}
			q.Send(out)
			if out[0].Drop != port.DropNone {
				t.Errorf("queue %d: %v", i, out[0].Drop)
			}
		}
		got := 0
		for deadline := time.Now().Add(patience); got < queues && time.Now().Before(deadline); {
			for _, g := range guests {
				if b, _, err := g.Recv(10 * time.Millisecond); err == nil && tuntest.IsEthernet(b) {
					got++
				}
			}
		}
		if got != queues {
			t.Errorf("%d of %d frames arrived at the guest", got, queues)
		}
	})
}
