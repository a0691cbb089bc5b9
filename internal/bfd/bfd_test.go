package bfd_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	speaker "github.com/vswitch/vswitch/internal/bfd"
	"github.com/vswitch/vswitch/internal/proto/bfd"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// role is the variable that has the test's binary be a host that speaks BFD, since a process has
// all its sockets in one network namespace. Its value is the neighbour's address.
const role = "VSWITCH_TEST_BFD_NEIGHBOR"

func TestMain(m *testing.M) {
	neighbor, ok := os.LookupEnv(role)
	if !ok {
		os.Exit(m.Run())
	}
	speak(netip.MustParseAddr(neighbor))
}

// speak watches a neighbour until the input ends, and prints its log and who is silent.
func speak(neighbor netip.Addr) {
	s := speaker.New(speaker.Config{
		Log:    slog.New(slog.NewTextHandler(os.Stdout, nil)),
		Silent: func(a netip.Addr, d time.Duration) { fmt.Println("silent", a, d) },
	})
	s.Add(speaker.Neighbor{Address: neighbor})
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Close()
	s.Wait()
}

// host is a process in a namespace that speaks BFD.
type host struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
}

func start(t *testing.T, ns *testenv.Netns, neighbor string) *host {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, cmd: ns.Command("env", role+"="+neighbor, self), lines: make(chan string, 100)}
	h.cmd.Stderr = os.Stderr
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(h.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			h.lines <- strings.TrimSpace(s.Text())
		}
	}()
	t.Cleanup(func() {
		_ = h.cmd.Process.Signal(syscall.SIGCONT)
		h.in.Close()
		var rest []string
		for line := range h.lines {
			rest = append(rest, line)
		}
		_ = h.cmd.Wait()
		if t.Failed() {
			t.Logf("the neighbor of %s said in the end: %q", neighbor, rest)
		}
	})
	return h
}

// says waits for a line with these words, and returns those up to it.
func (h *host) says(what string) (said []string) {
	h.t.Helper()
	for late := time.After(time.Minute); ; {
		select {
		case line, ok := <-h.lines:
			if !ok {
				h.t.Fatalf("the host ended before it said %q; it said %q", what, said)
			}
			if said = append(said, line); strings.Contains(line, what) {
				return said
			}
		case <-late:
			h.t.Fatalf("the host did not say %q; it said %q", what, said)
		}
	}
}

// hosts makes two namespaces that are joined by a cable.
func hosts(t *testing.T) (a, b *testenv.Netns) {
	t.Helper()
	a, b = testenv.NewNetns(t), testenv.NewNetns(t)
	a.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.Path())
	for i, ns := range []*testenv.Netns{a, b} {
		ns.Run("ip", "address", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth0")
		ns.Run("ip", "address", "add", fmt.Sprintf("2001:db8::%d/64", i+1), "dev", "eth0", "nodad")
		ns.Run("ip", "link", "set", "eth0", "up")
	}
	return a, b
}

// TestSilence has one of two hosts stop for a while, and then end in an orderly way.
func TestSilence(t *testing.T) {
	for _, addresses := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		t.Run(addresses[0], func(t *testing.T) {
			t.Parallel()
			na, nb := hosts(t)
			a, b := start(t, na, addresses[1]), start(t, nb, addresses[0])
			a.says("state=up")
			b.says("state=up")
			// nsenter and env become the program, so the signal reaches it.
			if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			a.says("silent " + addresses[1])
			if err := b.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			a.says("state=up")
			b.in.Close()
			if said := a.says("state=down"); strings.Contains(strings.Join(said, "\n"), "silent") {
				t.Errorf("a neighbor that says it ends is called silent: %q", said)
			}
		})
	}
}

// TestOthersPackets has a host get packets that look like its neighbour's last word, but for one
// thing each, and a lot that is nonsense. None may end the session.
func TestOthersPackets(t *testing.T) {
	t.Parallel()
	na, nb := hosts(t)
	nb.Run("ip", "address", "add", "192.0.2.3/24", "dev", "eth0")
	a, b := start(t, na, "192.0.2.2"), start(t, nb, "192.0.2.1")
	a.says("state=up")
	b.says("state=up")
	down := bfd.Packet{State: bfd.AdminDown, Mult: 3, My: 1, MinTX: time.Second, MinRX: time.Second}
	good := down.Put()
	send := func(from string, ttl int, packets ...[]byte) {
		t.Helper()
		nb.Do(func() {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP("192.0.2.1"), Port: 3784})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			raw, err := c.SyscallConn()
			if err == nil {
				err = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, ttl) })
			}
			for i := 0; i < len(packets) && err == nil; i++ {
				_, err = c.Write(packets[i])
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	send("192.0.2.2", 254, good[:]) // from another network
	send("192.0.2.3", 255, good[:]) // another sender
	foreign := down
	foreign.Your = 12345
	other := foreign.Put()
	send("192.0.2.2", 255, other[:]) // of another session
	var nonsense [][]byte
	for i := range 2000 {
		one := good
		one[i%len(one)] ^= byte(1 + i/len(one))
		one[0] |= 0xe0 // no such version
		nonsense = append(nonsense, one[:i%(len(one)+1)])
	}
	send("192.0.2.2", 255, nonsense...)
	// The session outlives three detection times; what ends it is then b's own last word.
	end := time.After(3 * speaker.DefaultMult * speaker.DefaultInterval)
	for waiting := true; waiting; {
		select {
		case line := <-a.lines:
			t.Fatalf("the host says %q", line)
		case <-end:
			waiting = false
		}
	}
	b.in.Close()
	a.says("state=down")
}

// TestPortInUse has another program of the host, such as FRR's bfdd, speak BFD.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	na, _ := hosts(t)
	na.Do(func() {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 3784})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	})
	if said := start(t, na, "192.0.2.2").says("reason="); !strings.Contains(said[len(said)-1], "port 3784 is another program's") {
		t.Errorf("it says %q", said)
	}
}
