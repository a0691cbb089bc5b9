package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// testpmd is DPDK's program of that name, as two guests of vhost-user ports: a thread on its
// own processor sends each frame from one port out of the other (forwarding mode io), so
// frames circulate through the switch. It polls and needs no notifications. It reports its
// counts on its telemetry socket.
type testpmd struct {
	*process
	stdin     io.WriteCloser
	telemetry *net.UnixConn
	work      work
	reply     [64 << 10]byte

	start counts // totals before the measurement
}

const (
	testpmdName = "dpdk-testpmd"

	// testpmdRing is the length of its rings, the same as of QEMU's guests, if no more than half
	// a ring circulates each way, so that none is lost for lack of room while one side has its
	// turn.
	testpmdRing     = 256
	testpmdInFlight = testpmdRing / 2

	inEachBurst = 32 // at most
)

// inFlight returns how many frames of the work circulate each way, and in bursts of how many.
func (w work) inFlight() (all, burst int) {
	all = cmp.Or(w.InFlight, testpmdInFlight)
	return all, min(all, inEachBurst)
}

// testpmdMAC returns the address of a port.
func testpmdMAC(i int) string { return fmt.Sprintf("52:54:00:00:00:%02x", i) }

// circulate runs the switch on one processor and testpmd on another, with frames circulating
// between them.
func (l *lab) circulate(ctx context.Context, p peer, w work) (*testpmd, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return nil, err
	}
	var cpus []int
	for i := range 64 * len(allowed) { // one bit each
		if len(cpus) < 2 && allowed.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	if len(cpus) < 2 {
		return nil, errors.New("the switch and testpmd need a processor each")
	}

	sockets := make([]string, w.Ports)
	for i := range sockets {
		sockets[i] = l.socket(i)
	}
	if err := l.pin(cpus[0]); err != nil {
		return nil, err
	}
	if err := p.attach(ctx, l, byVhost, sockets); err != nil {
		return nil, err
	}
	if err := l.pin(cpus[1]); err != nil {
		return nil, err
	}
	pmd, err := l.testpmd(cpus[1], w, sockets)
	if err != nil {
		return nil, err
	}
	if err := pmd.begin(ctx, l); err != nil {
		pmd.close()
		return nil, err
	}
	return pmd, nil
}

// testpmd starts testpmd with a port for each socket.
func (l *lab) testpmd(cpu int, w work, sockets []string) (*testpmd, error) {
	all, burst := w.inFlight()
	args := []string{
		// The thread that takes commands, and the one that forwards.
		"--lcores", fmt.Sprintf("0@%d,1@%d", cpu, cpu),
		"--no-huge", "-m", "256", "--no-pci",
	}
	for i, s := range sockets {
		args = append(args, "--vdev", fmt.Sprintf("net_virtio_user%d,path=%s,server=1,queues=1,queue_size=%d,mac=%s", i, s, max(testpmdRing, 2*all), testpmdMAC(i)))
	}
	args = append(args, "--", "--interactive", "--total-num-mbufs=8192", "--forward-mode=io", fmt.Sprintf("--burst=%d", burst), fmt.Sprintf("--txpkts=%d", w.Size))
	for i := range sockets {
		args = append(args, fmt.Sprintf("--eth-peer=%d,%s", i, testpmdMAC(i^1)))
	}
	cmd := exec.Command(testpmdName, args...)
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+l.dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p, err := l.launch(cmd)
	if errors.Is(err, exec.ErrNotFound) {
		err = fmt.Errorf("%s is missing; install the package dpdk-dev, or leave this work out with -work", testpmdName)
	}
	if err != nil {
		return nil, err
	}
	return &testpmd{process: p, stdin: stdin, work: w}, nil
}

func (t *testpmd) close() {
	t.stdin.Close()
	if t.telemetry != nil {
		t.telemetry.Close()
	}
}

func (t *testpmd) command(lines ...string) error {
	_, err := io.WriteString(t.stdin, strings.Join(lines, "\n")+"\n")
	return err
}

// collect makes testpmd receive the frames under way and send nothing.
func (t *testpmd) collect() error { return t.command("stop", "set fwd rxonly", "start") }

// begin waits until testpmd has found a working switch at each socket, and starts the
// circulation of frames.
func (t *testpmd) begin(ctx context.Context, l *lab) error {
	at := &net.UnixAddr{Name: filepath.Join(l.dir, "dpdk/rte/dpdk_telemetry.v2"), Net: "unixpacket"}
	err := l.poll(ctx, func() (err error) {
		t.telemetry, err = net.DialUnix(at.Net, nil, at)
		return err
	})
	if err == nil {
		_, err = t.telemetry.Read(t.reply[:]) // its greeting
	}
	if err == nil {
		err = l.poll(ctx, func() error { return t.try(ctx) })
	}
	if err == nil {
		all, burst := t.work.inFlight()
		err = t.command(fmt.Sprintf("start tx_first %d", all/burst))
	}
	return err
}

// try lets a burst circulate for a moment and returns an error if any of it was lost.
func (t *testpmd) try(ctx context.Context) error {
	before, err := t.total()
	if err != nil {
		return err
	}
	t.start = before
	if err := t.command("start tx_first 1"); err != nil {
		return err
	}
	if err := pause(ctx, silence); err != nil {
		return err
	}
	if err := t.collect(); err != nil {
		return err
	}
	c, err := drain(ctx, work{}, t)
	if err != nil {
		return err
	}
	if err := t.command("stop", "set fwd io"); err != nil {
		return err
	}
	if c.sent == 0 || c.sent != c.delivered {
		return fmt.Errorf("of %d frames %d came through", c.sent, c.delivered)
	}
	t.start, err = t.total()
	return err
}

// turn implements traffic.
func (t *testpmd) turn(phase int32) error {
	if phase == phaseDrain {
		return t.collect()
	}
	return nil
}

// count implements traffic.
func (t *testpmd) count() (counts, error) {
	c, err := t.total()
	c.sent -= t.start.sent
	c.delivered -= t.start.delivered
	return c, err
}

// total returns what all ports have sent and received since testpmd started.
func (t *testpmd) total() (c counts, err error) {
	if err := t.telemetry.SetDeadline(time.Now().Add(setupTime)); err != nil {
		return c, err
	}
	for i := range t.work.Ports {
		request := fmt.Sprintf("/ethdev/stats,%d", i)
		if _, err := io.WriteString(t.telemetry, request); err != nil {
			return c, err
		}
		n, err := t.telemetry.Read(t.reply[:])
		if err != nil {
			return c, err
		}
		var reply struct {
			Stats struct{ Ipackets, Opackets uint64 } `json:"/ethdev/stats"`
		}
		if err := json.Unmarshal(t.reply[:n], &reply); err != nil {
			return c, fmt.Errorf("telemetry: %w", err)
		}
		c.sent += reply.Stats.Opackets
		c.delivered += reply.Stats.Ipackets
	}
	return c, nil
}

// check returns an error if too few frames circulated to the end: lost frames are not
// replaced.
func (t *testpmd) check(s Sample) error {
	all, _ := t.work.inFlight()
	round := t.work.Ports * all
	if lost := int64(s.Expected - s.Delivered); lost > int64(round/2) {
		return fmt.Errorf("%d of the %d frames that went round were lost", lost, round)
	}
	return nil
}
