package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// overlaid is a peer that joins the guests of two hosts by VXLAN.
type overlaid interface {
	// overlay joins the switch of a host, which runs, to that of the other host.
	overlay(ctx context.Context, l *lab, local, other string) error
}

// What joins the two hosts: a veth that takes guests' packets of 1500 bytes with their outer
// headers.
const (
	underlay    = "ul0"
	underlayMTU = "1600"
	vni         = "100"
)

func hostAddress(i int) string { return fmt.Sprintf("192.0.2.%d", i+1) }

// hosts makes a second host, which ends with the lab, joins both by the underlay, has attach run
// the peer on each, and joins their switches.
func (l *lab) hosts(ctx context.Context, p peer, attach func(ctx context.Context, host *lab, i int) error) error {
	far, err := newLab()
	if err != nil {
		return err
	}
	l.far = far
	if _, err := l.run(ctx, "ip", "link", "add", underlay, "mtu", underlayMTU, "type", "veth", "peer", "name", underlay, "mtu", underlayMTU, "netns", far.netns); err != nil {
		return err
	}
	for i, host := range []*lab{l, far} {
		if _, err := host.runInput(ctx, fmt.Sprintf("addr add %s/24 dev %s\nlink set %[2]s up\n", hostAddress(i), underlay), "ip", "-batch", "-"); err != nil {
			return err
		}
		if err := attach(ctx, host, i); err != nil {
			return err
		}
	}
	for i, host := range []*lab{l, far} {
		if err := p.(overlaid).overlay(ctx, host, hostAddress(i), hostAddress(1-i)); err != nil {
			return err
		}
	}
	return nil
}

// connectHosts is connect for one guest at each of two hosts.
func (l *lab) connectHosts(ctx context.Context, p peer) (ends []end, err error) {
	open := func(ctx context.Context, host *lab, i int) error {
		taps, err := host.taps(ctx, []string{guestName(i)})
		ends = append(ends, taps...)
		return err
	}
	err = l.hosts(ctx, p, func(ctx context.Context, host *lab, i int) (err error) {
		if !p.makesTAPs() {
			err = open(ctx, host, i)
		}
		if err == nil {
			err = p.attach(ctx, host, byTAP, []string{guestName(i)})
		}
		if err == nil && p.makesTAPs() {
			err = open(ctx, host, i)
		}
		return err
	})
	if err != nil {
		closeAll(ends)
		return nil, err
	}
	return ends, nil
}

// stream is one TCP connection between containers, as traffic. It counts what is
// sent and read in segments of mss bytes, each as a frame.
type stream struct {
	from, to  net.Conn
	stop      atomic.Bool
	all       sync.WaitGroup
	sent, got atomic.Uint64 // bytes
}

// avoiding returns a net.Dialer's Control. It makes connections avoid congestion by an algorithm.
func avoiding(congestion string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		})
		return cmp.Or(e, err)
	}
}

// converse connects two containers by TCP: at one switch, or at one each.
func (l *lab) converse(ctx context.Context, p peer, w work) (*stream, error) {
	var guests [2]*lab
	for i := range guests {
		g, err := newLab()
		if err != nil {
			return nil, err
		}
		guests[i] = g
		l.guests = append(l.guests, g)
	}
	plug := func(host *lab, i int) error {
		name := guestName(i)
		if _, err := host.run(ctx, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", guests[i].netns); err != nil {
			return err
		}
		if _, err := host.run(ctx, "ip", "link", "set", name, "up"); err != nil {
			return err
		}
		lines := fmt.Sprintf("addr add %s/24 dev eth0\nlink set eth0 address %s\nlink set eth0 up\n", addressText(i), macText(i))
		_, err := guests[i].runInput(ctx, lines, "ip", "-batch", "-")
		return err
	}
	var err error
	if w.By == byVXLAN {
		err = l.hosts(ctx, p, func(ctx context.Context, host *lab, i int) error {
			return cmp.Or(plug(host, i), p.attach(ctx, host, byVeth, []string{guestName(i)}))
		})
	} else {
		err = cmp.Or(plug(l, 0), plug(l, 1), p.attach(ctx, l, byVeth, []string{guestName(0), guestName(1)}))
	}
	if err == nil && w.With != plain {
		err = p.(adjustable).adjust(ctx, l, w)
	}
	if err != nil {
		return nil, err
	}

	s := new(stream)
	var listener net.Listener
	guests[1].do(func() { listener, err = net.Listen("tcp4", addressText(1)+":0") })
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	dialer := net.Dialer{Timeout: time.Second, Control: avoiding(w.Pattern.congestion())}
	err = l.poll(ctx, func() (err error) {
		guests[0].do(func() { s.from, err = dialer.DialContext(ctx, "tcp4", listener.Addr().String()) })
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("no connection between the hosts: %w", err)
	}
	if s.to, err = listener.Accept(); err != nil {
		s.from.Close()
		return nil, err
	}
	s.all.Go(s.send)
	s.all.Go(s.receive)
	return s, nil
}

func (s *stream) send() {
	defer s.from.Close()
	for b := make([]byte, 256<<10); !s.stop.Load(); {
		s.sent.Add(uint64(len(b))) // the receiver may be quicker than Write's return
		if _, err := s.from.Write(b); err != nil {
			return
		}
	}
}

func (s *stream) receive() {
	defer s.to.Close()
	for b := make([]byte, 256<<10); ; {
		n, err := s.to.Read(b)
		s.got.Add(uint64(n))
		if err != nil {
			return
		}
	}
}

// turn implements traffic.
func (s *stream) turn(phase int32) error {
	if phase >= phaseDrain {
		s.stop.Store(true)
	}
	return nil
}

// count implements traffic.
func (s *stream) count() (counts, error) {
	return counts{sent: s.sent.Load() / mss, delivered: s.got.Load() / mss}, nil
}

// close ends the connection, however it stands.
func (s *stream) close() {
	s.stop.Store(true)
	deadline := time.Now().Add(time.Second)
	_ = s.from.SetDeadline(deadline)
	_ = s.to.SetDeadline(deadline)
	s.all.Wait()
}

// overlay implements overlaid.
func (bridge) overlay(ctx context.Context, l *lab, local, other string) error {
	_, err := l.runInput(ctx, "link add vx0 type vxlan id "+vni+" dstport 4789 local "+local+" remote "+other+"\n"+
		"link set vx0 mtu 1500 master br0 up\n", "ip", "-batch", "-")
	return err
}

// overlay implements overlaid. Without the fast path sockets carry the frames, as without root.
func (v vswitch) overlay(ctx context.Context, l *lab, local, other string) error {
	plane := "sockets"
	if v.fast {
		plane = "kernel"
	}
	_, err := l.run(ctx, v.binary, append([]string{"--socket", v.socket(l)},
		strings.Fields("add-port up0 --kind vxlan --local "+local+" --peers "+other+" --vni "+vni+" --data-plane "+plane)...)...)
	return err
}

// netnsPath returns where the calling thread's network namespace can be named by others.
func netnsPath() string { return fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()) }
