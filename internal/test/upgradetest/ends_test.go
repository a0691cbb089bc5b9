package upgradetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/port"
)

// end is the other end of a port: a machine, a host's NIC or a container. One goroutine sends while
// another receives.
type end struct {
	name string
	send func(wire []byte) error
	recv func(timeout time.Duration) ([]byte, error) // os.ErrDeadlineExceeded: nothing came

	reconnects bool // its connection ends with the process of the switch
}

// kinds adds a port of each kind and connects its other end. Those that depend on the kernel's fast
// path forward in it, if it is on.
var kinds = map[string]func(t testing.TB, sw *daemontest.Daemon, name string) end{
	"tap": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		sw.Ctl(t, "add-port %s --owner nobody", name)
		var g *tuntest.Guest
		sw.Netns.Do(func() { g = tuntest.Boot(t, name, 0) })
		return end{name: name, send: plain(g.Send), recv: first(g.Recv)}
	},
	"shaped": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		sw.Ctl(t, "add-port %s --rate-out 1gbit", name)
		var g *tuntest.Guest
		sw.Netns.Do(func() { g = tuntest.Boot(t, name, 0) })
		return end{name: name, send: plain(g.Send), recv: first(g.Recv)}
	},
	"host": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		sw.Ctl(t, "add-port %s --kind host", name)
		return station(t, sw.Netns, name)
	},
	"netdev": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		sw.Netns.Run("ip", "link", "add", name, "type", "veth", "peer", "name", name+"p")
		sw.Netns.Run("ip", "link", "set", name+"p", "up")
		sw.Netns.Run("ip", "link", "set", name, "up")
		sw.Ctl(t, "add-port %s --kind netdev --exclusive", name)
		e := station(t, sw.Netns, name+"p")
		e.name = name
		return e
	},
	"lag": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		// The other end has not heard of LACP: it sends by one cable and receives by both.
		var far []end
		for _, cable := range []string{name + "0", name + "1"} {
			sw.Netns.Run("ip", "link", "add", cable, "type", "veth", "peer", "name", cable+"p")
			sw.Netns.Run("ip", "link", "set", cable, "up")
			sw.Netns.Run("ip", "link", "set", cable+"p", "up")
			far = append(far, station(t, sw.Netns, cable+"p"))
		}
		sw.Ctl(t, "add-port %s --kind lag --lag-mode static --members %s0,%s1", name, name, name)
		const look = time.Millisecond
		return end{name: name, send: far[0].send, recv: func(timeout time.Duration) (b []byte, err error) {
			for deadline := time.Now().Add(timeout); ; {
				for _, one := range far {
					if b, err = one.recv(look); err == nil || time.Now().After(deadline) {
						return b, err
					}
				}
			}
		}}
	},
	"veth": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		container := testenv.NewNetns(t)
		sw.Ctl(t, "add-port %s --kind veth --netns %s", name, container.Path())
		e := station(t, container, "eth0")
		e.name = name
		return e
	},
	"vhost-user": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		path := socketPath(t)
		sw.Ctl(t, "add-port %s --kind vhost-user --owner nobody --path %s", name, path)
		g := vhosttest.Dial(t, path, vhosttest.Options{Size: 1024})
		t.Cleanup(g.Close)
		return end{
			name: name,
			send: func(wire []byte) error { return g.Send([12]byte{}, wire) },
			recv: func(timeout time.Duration) ([]byte, error) { _, b, err := g.Recv(timeout); return b, err },
		}
	},
	"stream": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		c, _ := stream(t, sw, name)
		return end{name: name, send: c.send, recv: c.recv}
	},
	// As QEMU with reconnect-ms. What is under way when the connection ends is lost.
	"redial": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		c, path := stream(t, sw, name)
		r := &redialer{path: path, conn: c}
		t.Cleanup(func() { r.conn.Close() })
		return end{name: name, send: r.send, recv: r.recv, reconnects: true}
	},
	"dgram": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		path := socketPath(t)
		sw.Ctl(t, "add-port %s --kind dgram --owner nobody --path %s", name, path)
		own := path + ".vm"
		// As systemd sets it. With the kernel's 10, more frames would wait in the switch than a kill
		// may lose, where this process is slow to read.
		sw.Netns.Run("sysctl", "-q", "-w", "net.unix.max_dgram_qlen=512")
		var c *net.UnixConn
		var err error
		sw.Netns.Do(func() { c, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: own, Net: "unixgram"}) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		to := &net.UnixAddr{Name: path, Net: "unixgram"}
		return end{
			name: name,
			send: func(wire []byte) error { _, err := c.WriteToUnix(wire, to); return err },
			recv: func(timeout time.Duration) ([]byte, error) { return datagram(c, timeout) },
		}
	},
	"vxlan": func(t testing.TB, sw *daemontest.Daemon, name string) end {
		local, peer := netip.MustParseAddrPort("127.0.0.1:4789"), netip.MustParseAddrPort("127.0.0.2:4789")
		// Its peer is on the same host, where a device would have the UDP port for all addresses.
		sw.Ctl(t, "add-port %s --kind vxlan --local %s --peers %s --vni 7 --data-plane sockets", name, local.Addr(), peer.Addr())
		var c *net.UDPConn
		var err error
		sw.Netns.Do(func() { c, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(peer), net.UDPAddrFromAddrPort(local)) })
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		sw.Netns.Do(func() { c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(peer)) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetReadBuffer(4 << 20)
		header := []byte{8, 0, 0, 0, 0, 0, 7, 0} // RFC 7348 section 5
		return end{
			name: name,
			send: func(wire []byte) error {
				_, err := c.WriteToUDPAddrPort(append(header[:8:8], wire...), local)
				return err
			},
			recv: func(timeout time.Duration) ([]byte, error) {
				b, err := datagram(c, timeout)
				return b[min(8, len(b)):], err
			},
		}
	},
}

// stream adds a port of kind stream and connects to it.
func stream(t testing.TB, sw *daemontest.Daemon, name string) (c streamConn, path string) {
	path = socketPath(t)
	sw.Ctl(t, "add-port %s --kind stream --owner nobody --path %s", name, path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return streamConn{conn}, path
}

// streamConn carries frames, each behind its length.
type streamConn struct{ net.Conn }

func (c streamConn) send(wire []byte) error {
	_, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(wire))), wire...))
	return err
}

func (c streamConn) recv(timeout time.Duration) ([]byte, error) {
	// A frame that has begun comes whole: the deadline is for its first byte.
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	var head [4]byte
	if _, err := io.ReadFull(c, head[:1]); err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Time{})
	if _, err := io.ReadFull(c, head[1:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < port.HeaderLen || n > port.MaxFrame {
		return nil, fmt.Errorf("a frame of %d bytes: %w", n, errOutOfStep)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}

var errOutOfStep = errors.New("the stream is out of step")

// redialer is a streamConn that connects again whenever it ends.
type redialer struct {
	path string

	mu   sync.Mutex
	conn streamConn
}

func (r *redialer) current() streamConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn
}

// again connects again unless another goroutine did since was.
func (r *redialer) again(was streamConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != was {
		return
	}
	if c, err := net.Dial("unix", r.path); err == nil {
		r.conn.Close()
		r.conn = streamConn{c}
	}
}

func (r *redialer) send(wire []byte) error {
	c := r.current()
	if c.send(wire) != nil {
		r.again(c)
	}
	return nil
}

func (r *redialer) recv(timeout time.Duration) ([]byte, error) {
	for deadline := time.Now().Add(timeout); ; {
		c := r.current()
		b, err := c.recv(time.Until(deadline))
		switch {
		case err == nil || errors.Is(err, errOutOfStep):
			return b, err
		case time.Now().After(deadline):
			return nil, os.ErrDeadlineExceeded
		}
		r.again(c)
		time.Sleep(time.Millisecond)
	}
}

// socketPath returns a path that is short enough for a socket.
func socketPath(t testing.TB) string {
	dir, err := os.MkdirTemp("", "vsw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "p")
}

// station is the end at a device of the host or of a container.
func station(t testing.TB, ns *testenv.Netns, ifname string) end {
	var s *tuntest.Station
	ns.Do(func() { s = tuntest.Listen(t, ifname) })
	return end{name: ifname, send: plain(s.Send), recv: first(s.Recv)}
}

func plain(send func([]byte, port.Offload) error) func([]byte) error {
	return func(wire []byte) error { return send(wire, port.Offload{}) }
}

func first(recv func(time.Duration) ([]byte, port.Offload, error)) func(time.Duration) ([]byte, error) {
	return func(timeout time.Duration) ([]byte, error) { b, _, err := recv(timeout); return b, err }
}

func datagram(c net.Conn, timeout time.Duration) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(timeout))
	b := make([]byte, 2048)
	n, err := c.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = os.ErrDeadlineExceeded
	}
	return b[:n], err
}
