package vhostuser_test

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/vhostuser"
)

// echoSocket and echoDir tell a process of the tests that it is to send back all that
// comes by a port of its own.
const echoSocket, echoDir = "VSWITCH_TEST_ECHO_SOCKET", "VSWITCH_TEST_ECHO_DIR"

func TestMain(m *testing.M) {
	if path := os.Getenv(echoSocket); path != "" {
		panic(echo(path, os.Getenv(echoDir)))
	}
	goleak.VerifyTestMain(m)
}

// echo works until the process is killed.
func echo(path, dir string) error {
	p, err := vhostuser.Kind{Dir: dir}.Open(port.Spec{Name: "vm0", Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}}, new(port.Trace))
	if err != nil {
		return err
	}
	q := p.Queues()[0]
	var frames [port.BatchSize]port.Frame
	for {
		n, err := q.Recv(frames[:])
		if err != nil {
			return err
		}
		out := make([]port.Out, n)
		for i := range out {
			out[i].Frame = &frames[i]
		}
		q.Send(out)
		q.Release()
	}
}

// TestKilled kills the switch's process under traffic, again and again. The guest goes on
// with the same rings, wherever they were, although its front end does not know where.
func TestKilled(t *testing.T) {
	packed := guests["packed"]
	inflight := packed
	inflight.Inflight = true
	for name, c := range map[string]struct {
		o    vhosttest.Options
		kept bool // by the port in a file
	}{
		"split":                 {guests["modern"], false},
		"split flags":           {guests["flags"], false},
		"packed":                {packed, true},
		"packed chains":         {guests["packed chains"], true},
		"packed, the front end": {inflight, false},
	} {
		t.Run(name, func(t *testing.T) {
			path, dir := socketPath(t), ""
			if c.kept {
				dir = filepath.Dir(path)
			}
			e := echoing(t, path, dir)
			g := vhosttest.Dial(t, path, c.o)
			tr := traffic{t: t, g: g}
			for kills := range 40 {
				// More than a lap of the ring, and some.
				for enough := tr.sent + uint32(g.Size+37*(kills%20)); tr.sent < enough; {
					tr.round(patience)
				}
				go func() {
					time.Sleep(time.Duration(kills%40) * 25 * time.Microsecond) // somewhere in a round
					e.kill()
				}()
				for !e.dead() {
					tr.round(0)
				}
				e = echoing(t, path, dir)
				g.Reconnect(t, path)
				// What the dead process had in hand is lost, nothing else.
				for lost := tr.sent; tr.came < lost; {
					tr.round(patience)
				}
			}
			t.Logf("%d of %d frames came back", tr.count, tr.sent)
		})
	}
}

// traffic is what a guest sends and gets back.
type traffic struct {
	t     *testing.T
	g     *vhosttest.Guest
	sent  uint32 // the number of the last frame
	came  uint32 // that came back
	count int
}

// round sends some frames and takes what comes back until it is the last of them. Without
// patience it takes what is there: a process that dies owes frames and calls.
func (tr *traffic) round(patience time.Duration) {
	tr.t.Helper()
	for i := 0; i < 16 && tr.sent-tr.came < 64; i++ { // no more than there is room for
		tr.sent++
		b := wire(64 + int(tr.sent%3)*1500)
		binary.BigEndian.PutUint32(b[20:], tr.sent)
		if err := tr.g.Send([12]byte{}, b); err != nil {
			tr.t.Fatalf("frame %d finds no room: %v", tr.sent, err)
		}
	}
	for tries := 0; tr.came != tr.sent; {
		_, b, err := tr.g.Recv(patience)
		if err != nil {
			if tries++; patience == 0 && tries < 20 {
				time.Sleep(50 * time.Microsecond)
				continue
			} else if patience == 0 {
				return
			}
			tr.t.Fatalf("frame %d came back, %d were sent: %v", tr.came, tr.sent, err)
		}
		n := uint32(0)
		if len(b) >= 64 {
			n = binary.BigEndian.Uint32(b[20:])
		}
		if n <= tr.came || n > tr.sent || len(b) != 64+int(n%3)*1500 {
			tr.t.Fatalf("frame %d of %d bytes came back after %d, %d were sent", n, len(b), tr.came, tr.sent)
		}
		tr.came = n
		tr.count++
	}
}

// echoer is a process that runs echo.
type echoer struct {
	*exec.Cmd
	ended chan struct{}
}

func echoing(t *testing.T, path, dir string) *echoer {
	t.Helper()
	e := &echoer{exec.Command(os.Args[0]), make(chan struct{})}
	e.Env = append(os.Environ(), echoSocket+"="+path, echoDir+"="+dir)
	e.Stderr = os.Stderr
	e.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = e.Wait() // it was killed
		close(e.ended)
	}()
	t.Cleanup(func() { e.kill(); <-e.ended })
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return e
		}
		if time.Now().After(limit) || e.dead() {
			t.Fatal("the process does not listen")
		}
	}
}

func (e *echoer) kill() { _ = e.Process.Kill() } // its only error is that it has ended

func (e *echoer) dead() bool {
	select {
	case <-e.ended:
		return true
	default:
		return false
	}
}
