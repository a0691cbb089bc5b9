package unixsock_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/files/sockfile"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/unixsock"
)

func spec(o unixsock.Settings) port.Spec { return port.Spec{Name: "vm0", Settings: o} }

// Who may use a port's socket is a setting, which changes while machines are connected.
func TestAccess(t *testing.T) {
	testenv.Root(t)
	for _, kind := range []func(dir string) port.Kind{
		func(dir string) port.Kind { return unixsock.Stream{Dir: dir} },
		func(dir string) port.Kind { return unixsock.Dgram{Dir: dir} },
	} {
		dir := filepath.Join(tempDir(t), "d")
		k := kind(dir)
		s := spec(unixsock.Settings{Socket: port.Socket{Owner: "65534", Group: "7", Mode: "0620"}})
		p := open(t, k, s)
		want := func(path string, owner, group, mode uint32) {
			t.Helper()
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil || st.Uid != owner || st.Gid != group || st.Mode&0o7777 != mode {
				t.Errorf("%s: %s is of %d:%d, %#o, %v", k.Name(), path, st.Uid, st.Gid, st.Mode, err)
			}
		}
		want(sock(dir), 65534, 7, 0o620)
		want(dir, 0, 0, 0o771)
		for _, c := range []struct {
			to                 unixsock.Settings
			owner, group, mode uint32
		}{
			{unixsock.Settings{Socket: port.Socket{Group: "8"}}, 0, 8, 0o660},
			{unixsock.Settings{Socket: port.Socket{Mode: "666"}}, 0, 0, 0o666},
			{unixsock.Settings{}, 0, 0, 0o660},
		} {
			if err := k.Set(p, s, spec(c.to)); err != nil {
				t.Fatal(err)
			}
			want(sock(dir), c.owner, c.group, c.mode)
			s = spec(c.to)
		}
		bad := spec(unixsock.Settings{Socket: port.Socket{Owner: "no-such-user"}})
		if err := k.Set(p, s, bad); err == nil || !strings.Contains(err.Error(), "no user") {
			t.Errorf("%s: %v", k.Name(), err)
		}
		if p2, err := k.Open(port.Spec{Name: "vm1", Settings: unixsock.Settings{Socket: port.Socket{Group: "no-such-group"}}}, new(port.Trace)); err == nil {
			p2.Close()
			t.Errorf("%s opens for a group that is not there", k.Name())
		} else if _, err := os.Lstat(filepath.Join(dir, "vm1.sock")); err == nil {
			t.Errorf("%s: its socket is there", k.Name())
		}
		p.Close()
		if err := k.Set(p, s, spec(unixsock.Settings{Socket: port.Socket{Mode: "666"}})); err != nil {
			t.Errorf("%s, closed: %v", k.Name(), err)
		}
	}
	for _, o := range []port.Socket{{Mode: "0660"}, {Owner: "root"}, {Group: "root"}} {
		o.Path, o.Client = "/run/x", true
		s := spec(unixsock.Settings{Socket: o})
		if err := (unixsock.Stream{}).Check(s); err == nil || !strings.Contains(err.Error(), "leave --owner, --group and --mode out") {
			t.Errorf("a client without a socket: %v", err)
		}
		if err := (unixsock.Dgram{}).Check(s); err != nil {
			t.Errorf("a client with a socket of its own: %v", err)
		}
	}
}

// A socket whose file is deleted comes back, with its mode, and frames pass.
func TestSocketIsDeleted(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]port.Kind{"stream": unixsock.Stream{}, "dgram": unixsock.Dgram{}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(tempDir(t), "d")
			path := sock(dir)
			p := open(t, kind, port.Spec{Settings: unixsock.Settings{Socket: port.Socket{Path: path, Mode: "0600"}}})
			r := read(t, p)
			var peer interface {
				Send([]byte, port.Offload) error
				Recv(time.Duration) ([]byte, port.Offload, error)
			}
			if name == "stream" {
				peer = dialPeer(t, path)
			} else {
				peer = newDgramPeer(t, filepath.Join(filepath.Dir(dir), "a"), path, false)
			}
			passes(t, p, r, peer)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "the socket is there again", func() bool {
				i, err := os.Lstat(path)
				return err == nil && i.Mode() == os.ModeSocket|0o600
			})
			passes(t, p, r, peer) // who was there is there
			if name == "stream" {
				peer.(*streamPeer).Close()
				awaitLink(t, p, false)
				peer = dialPeer(t, path)
			} else {
				peer.(*dgramPeer).Close()
				peer = newDgramPeer(t, filepath.Join(filepath.Dir(dir), "b"), path, true)
			}
			testenv.Eventually(t, "another is there", func() bool {
				if err := peer.Send(frame(9, 60), port.Offload{}); err != nil {
					t.Fatal(err)
				}
				return r.next(t).Drop == port.DropNone
			})
			passes(t, p, r, peer)
		})
	}
	if sockfile.LookEvery > 3e9 {
		t.Error("nobody waits so long")
	}
}
