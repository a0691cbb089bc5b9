package vhostuser_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/vhostuser"
	vswitch "github.com/vswitch/vswitch/switch"
)

// TestTestpmd has frames circulate: DPDK's virtio-user driver sends each frame that it
// gets on one of its two NICs out by the other, and the switch carries it back.
//
//	testpmd [NIC 0 ⇄ port a ── switch ── port b ⇄ NIC 1]
func TestTestpmd(t *testing.T) {
	testenv.Root(t)
	testpmd := testenv.Tool(t, "dpdk-testpmd")
	const packed, inOrder, merge = vhosttest.RingPacked, vhosttest.InOrder, vhosttest.MrgRxBuf
	for name, c := range map[string]struct {
		device string // options of virtio-user
		queues int
		client bool   // the port connects
		agreed uint64 // of packed, inOrder, merge
	}{
		"split":              {"", 1, false, inOrder | merge},
		"packed":             {",packed_vq=1", 1, false, packed | inOrder | merge},
		"not in order":       {",in_order=0", 1, false, merge},
		"packed no order":    {",packed_vq=1,in_order=0", 1, false, packed | merge},
		"not merging":        {",in_order=0,mrg_rxbuf=0", 1, false, 0},
		"packed not merging": {",packed_vq=1,mrg_rxbuf=0", 1, false, packed | inOrder},
		"queue pairs":        {"", 2, false, inOrder | merge},
		"packed queue pairs": {",packed_vq=1", 2, false, packed | inOrder | merge},
		"client":             {",server=1", 1, true, inOrder | merge},
		"packed client":      {",server=1,packed_vq=1", 1, true, packed | inOrder | merge},
	} {
		t.Run(name, func(t *testing.T) {
			sw := vswitch.New(vswitch.Config{})
			t.Cleanup(func() { sw.Close() })
			dir := filepath.Dir(socketPath(t))
			args := []string{
				"--lcores", "0@(0-1),1@(0-1)", "--no-huge", "-m", "128", "--no-pci", "--no-telemetry",
			}
			var ports []*vhostuser.Port
			var inSwitch []*vswitch.Port
			for i, name := range []string{"a", "b"} {
				path := filepath.Join(dir, name)
				p := open(t, vhostuser.Kind{}, port.Spec{Name: name, Settings: vhostuser.Settings{Socket: port.Socket{Path: path, Client: c.client}}})
				sp, err := sw.AddPort(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := sp.Attach(p); err != nil {
					t.Fatal(err)
				}
				sp.SetForwarding(true)
				ports, inSwitch = append(ports, p), append(inSwitch, sp)
				args = append(args, "--vdev", fmt.Sprintf("net_virtio_user%d,path=%s,queues=%d,queue_size=256,mac=52:54:00:00:00:0%d%s", i, path, c.queues, i, c.device))
			}
			args = append(args, "--", "-i", "--total-num-mbufs=4096", "--forward-mode=io",
				fmt.Sprintf("--rxq=%d", c.queues), fmt.Sprintf("--txq=%d", c.queues),
				"--eth-peer=0,52:54:00:00:00:01", "--eth-peer=1,52:54:00:00:00:00")
			pmd := start(t, dir, testpmd, args...)
			for _, p := range ports {
				linked(t, p, true)
				if got := p.Features() & (packed | inOrder | merge); got != c.agreed {
					t.Errorf("features %#x were agreed on, not %#x", got, c.agreed)
				}
			}
			pmd.write("start tx_first\n")
			const enough = 20_000
			for _, p := range inSwitch {
				pmd.until(t, fmt.Sprintf("%s has carried frames: %+v", p.Name(), p.Stats()), func() bool { return p.Stats().RX.Frames > enough })
			}
			pmd.write("stop\nquit\n")
			pmd.wait(t)
			t.Logf("%+v", inSwitch[0].Stats())
			for i, p := range inSwitch {
				rx, tx := p.Stats().RX, p.Stats().TX
				if rx.Dropped[port.DropBadOffload]+rx.Dropped[port.DropBadSource]+rx.Dropped[port.DropRunt] != 0 || tx.Frames < enough/2 {
					t.Errorf("port %s: received %+v, sent %+v", p.Name(), rx, tx)
				}
				linked(t, ports[i], false)
			}
		})
	}
}

// process is a program that is steered by its standard input.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	output testenv.Log
	ended  chan struct{}
}

func start(t *testing.T, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+dir) // where DPDK leaves files of its own
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait() // what it did is seen elsewhere
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill() // its only error is that it has ended
		<-p.ended
		if t.Failed() {
			t.Logf("%s: %s", name, p.output.String())
		}
	})
	return p
}

func (p *process) write(s string) { _, _ = io.WriteString(p.in, s) }

func (p *process) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not until now: %s", what)
		}
	}
}

func (p *process) wait(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
}
