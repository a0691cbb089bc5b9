package upgradetest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
)

// stallers are front ends that keep a vhost-user port from giving their connection to the next process.
var stallers = map[string]func(t *testing.T, c *net.UnixConn){
	"half a message": func(t *testing.T, c *net.UnixConn) {
		if _, err := c.Write(vhosttest.U32s(vhosttest.GetFeatures)); err != nil {
			t.Fatal(err)
		}
	},
	"answers that nobody reads": func(t *testing.T, c *net.UnixConn) {
		ask := vhosttest.U32s(vhosttest.GetFeatures, 1, 0)
		for err := error(nil); err == nil; { // until the switch makes no room: it waits to answer
			_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			_, err = c.Write(ask)
		}
	},
	"memory that is there twice": func(t *testing.T, c *net.UnixConn) {
		fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		const size = 64 << 10
		if err := unix.Ftruncate(fd, 2*size); err != nil {
			t.Fatal(err)
		}
		region := func(at uint64) (b []byte) {
			for _, v := range []uint64{at, size, at, 0} {
				b = append(b, vhosttest.U64(v)...)
			}
			return b
		}
		say := func(request uint32, payload []byte, fds ...int) {
			var rights []byte
			if len(fds) > 0 {
				rights = unix.UnixRights(fds...)
			}
			message := append(vhosttest.U32s(request, 1, uint32(len(payload))), payload...)
			if _, _, err := c.WriteMsgUnix(message, rights, nil); err != nil {
				t.Fatal(err)
			}
		}
		const slots = 1 << 15
		say(vhosttest.SetProtocolFeatures, vhosttest.U64(slots))
		say(vhosttest.SetMemTable, append(vhosttest.U32s(1, 0), region(0)...), fd)
		say(vhosttest.RemMemReg, append(vhosttest.U64(0), region(0)...))
		say(vhosttest.AddMemReg, append(vhosttest.U64(0), region(4096)...), fd)
		say(vhosttest.GetFeatures, nil)
		if _, err := c.Read(make([]byte, 64)); err != nil { // all that was heard
			t.Fatal(err)
		}
	},
}

// Peers that do what they can against an upgrade lose their own connections, at most.
func TestHostilePeers(t *testing.T) {
	testenv.Root(t)
	t.Parallel()
	sw, flows := ring(t, daemontest.Binary(t), []string{"tap", "vhost-user", "stream"})
	dial := func(path string) *net.UnixConn {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	// More of each than there are seconds for an upgrade.
	const each = 11
	n := 0
	for _, stall := range stallers {
		for range each {
			path := filepath.Join(filepath.Dir(socketPath(t)), "s")
			sw.Ctl(t, "add-port h%d --kind vhost-user --path %s", n, path)
			stall(t, dial(path))
			n++
		}
	}
	var lost []string
	for _, kind := range []string{"stream", "vhost-user", "dgram"} {
		path := filepath.Join(filepath.Dir(socketPath(t)), "sub", "s")
		sw.Ctl(t, "add-port l%s --kind %s --path %s", kind[:1], kind, path)
		lost = append(lost, path)
	}
	for _, path := range lost {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
	if u := sw.Upgrade(t); u.Ports != len(flows)+n+len(lost) {
		t.Errorf("%d ports were handed over", u.Ports)
	}
	for _, f := range flows {
		f.more(t, 30)
	}
	wantAll(t, "upgrade", flows)
	for _, path := range lost {
		testenv.Eventually(t, fmt.Sprintf("%s is there again", path), func() bool { return exists(path) })
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
