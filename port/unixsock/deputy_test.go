package unixsock_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/unixsock"
)

const nobody = 65534

// as runs f in a thread of its own, as a user and in a directory.
func as(t *testing.T, uid int, dir string, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(dir)
		}
		if err == nil && uid != 0 {
			// The system call concerns the thread alone.
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				err = errno
			} else if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				err = errno
			}
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// victim is a socket that root alone may use.
type victim struct {
	path string
	fd   int
}

func newVictim(t *testing.T, path string) victim {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), os.Chmod(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	return victim{path, fd}
}

// got expects that nothing came.
func (v victim) got(t *testing.T, what string) {
	t.Helper()
	var b [100]byte
	for {
		n, _, err := unix.Recvfrom(v.fd, b[:], 0)
		if err == unix.EAGAIN {
			return
		}
		t.Errorf("%s: root's socket got %d bytes, %v", what, n, err)
		if err != nil {
			return
		}
	}
}

// A machine of a user without rights names its socket as it likes, and changes what the name
// leads to at any time. The switch, which is root, sends to nothing that the machine could
// not send to itself.
func TestDgramDeputy(t *testing.T) {
	testenv.Root(t)
	for name, c := range map[string]struct {
		// bind is done as nobody in the machine's directory, which is home here. own is
		// bound there as "own".
		bind   func(fd int, home, secret string) error
		before func(home, secret string) error // as root, before the machine sends
		after  func(home, secret string) error // as nobody, after the port knows it
		reason string                          // why it is not answered; empty: it is
	}{
		"an honest path": {},
		"a relative path": {
			bind: func(fd int, home, secret string) error {
				rel := strings.TrimPrefix(secret, "/")
				return errors.Join(os.MkdirAll(filepath.Dir(rel), 0o755), unix.Bind(fd, &unix.SockaddrUnix{Name: rel}))
			},
			reason: "not absolute",
		},
		"a name outside of the file system": {
			bind:   func(fd int, home, secret string) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: "@own" + home}) },
			reason: "not in the file system",
		},
		"a link in place of the socket": {
			bind: func(fd int, home, secret string) error {
				return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: home + "/own"}), os.Remove("own"), os.Symlink(secret, "own"))
			},
			reason: "is no socket",
		},
		"a link on the way": {
			bind: func(fd int, home, secret string) error {
				return errors.Join(os.Mkdir("d", 0o755), unix.Bind(fd, &unix.SockaddrUnix{Name: home + "/d/secret"}),
					os.Rename("d", "e"), os.Symlink(filepath.Dir(secret), "d"))
			},
			reason: "user 0's",
		},
		"root's own socket": {
			bind: func(fd int, home, secret string) error {
				return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: home + "/own"}), os.Remove("own"))
			},
			before: func(home, secret string) error { return os.Rename(secret, home+"/own") },
			reason: "user 0's",
		},
		"a file in place of the socket": {
			bind: func(fd int, home, secret string) error {
				return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: home + "/own"}), os.Remove("own"), os.WriteFile("own", nil, 0o666))
			},
			reason: "is no socket",
		},
		"nothing in place of the socket": {
			bind: func(fd int, home, secret string) error {
				return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: home + "/own"}), os.Remove("own"))
			},
			reason: "nobody listens",
		},
		"a link after it was believed": {
			after: func(home, secret string) error { return errors.Join(os.Remove("own"), os.Symlink(secret, "own")) },
		},
		"a link on the way after it was believed": {
			bind: func(fd int, home, secret string) error {
				return errors.Join(os.Mkdir("d", 0o755), unix.Bind(fd, &unix.SockaddrUnix{Name: home + "/d/secret"}))
			},
			after: func(home, secret string) error {
				return errors.Join(os.Rename("d", "e"), os.Symlink(filepath.Dir(secret), "d"))
			},
		},
		"the port's own peer path as a link": {
			bind: func(fd int, home, secret string) error { return os.Symlink(secret, home+"/vm0.sock.vm") },
		},
		"the port's own peer path as a link, bound": {
			bind: func(fd int, home, secret string) error {
				return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: home + "/vm0.sock.vm"}), os.Remove("vm0.sock.vm"), os.Symlink(secret, "vm0.sock.vm"))
			},
			reason: "symbolic link of user 65534",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			home, secret := filepath.Join(dir, "home"), filepath.Join(dir, "root/secret")
			if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(home, 0o755), os.Chown(home, nobody, nobody), os.Mkdir(filepath.Dir(secret), 0o700)); err != nil {
				t.Fatal(err)
			}
			v := newVictim(t, secret)
			p := open(t, unixsock.Dgram{Dir: home}, port.Spec{Settings: unixsock.Settings{Socket: port.Socket{Owner: "65534"}}})
			r := read(t, p)
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			wait := unix.NsecToTimeval(patience.Nanoseconds())
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
				t.Fatal(err)
			}
			if c.bind == nil {
				c.bind = func(fd int, home, _ string) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: home + "/own"}) }
			}
			as(t, nobody, home, func() error { return c.bind(fd, home, secret) })
			if c.before != nil {
				as(t, 0, "/", func() error { return c.before(home, secret) })
			}
			as(t, nobody, home, func() error { return unix.Sendto(fd, frame(1, 60), 0, &unix.SockaddrUnix{Name: sock(home)}) })
			if f := r.next(t); f.Drop != port.DropNone || number(f.Data) != 1 {
				t.Errorf("its frame comes in as %d bytes, %v", len(f.Data), f.Drop)
			}
			if c.after != nil {
				as(t, nobody, home, func() error { return c.after(home, secret) })
			}
			sent := send(p, frame(2, 60), frame(3, 60))
			honest := c.reason == "" && !strings.HasPrefix(name, "the port's own")
			if honest {
				awaitLink(t, p, true)
				for n := range uint32(2) {
					var b [100]byte
					if got, _, err := unix.Recvfrom(fd, b[:], 0); err != nil || number(b[:got]) != 2+n || sent[n] != port.DropNone {
						t.Fatalf("it is not answered: %v, %v", err, sent)
					}
				}
			} else if sent[0] != port.DropNoCarrier || p.(port.Linked).Link() {
				t.Errorf("it is answered: %v, link %v", sent, p.(port.Linked).Link())
			}
			for range 5 { // what looks for the peer in the background finds no other
				send(p, frame(4, 60))
				time.Sleep(30 * time.Millisecond)
			}
			if why := linkError(p); c.reason != "" && (why == nil || !strings.Contains(why.Error(), c.reason) || strings.Contains(why.Error(), "\n")) {
				t.Errorf("the reason is %q, not %q", why, c.reason)
			}
			v.got(t, name)
		})
	}
}

// A machine of another user starts anew at the same path; the port finds the new socket.
func TestDgramOtherUserRestarts(t *testing.T) {
	testenv.Root(t)
	dir := tempDir(t)
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(home, 0o755), os.Chown(home, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{home + "/own", sock(home) + unixsock.PeerSuffix} {
		p := open(t, unixsock.Dgram{Dir: home}, port.Spec{Settings: unixsock.Settings{Socket: port.Socket{Owner: "65534"}}})
		r := read(t, p)
		for range 3 {
			var peer *dgramPeer
			as(t, nobody, home, func() error {
				peer = newDgramPeer(t, path, sock(home), false)
				return unix.Sendto(peer.fd, frame(1, 100), 0, peer.to)
			})
			if f := r.next(t); f.Drop != port.DropNone {
				t.Fatal(f.Drop)
			}
			testenv.Eventually(t, "it is answered", func() bool { return send(p, frame(2, 100))[0] == port.DropNone })
			if w, _, err := peer.Recv(patience); err != nil || number(w) != 2 {
				t.Fatal(err)
			}
			for send(p, frame(3, 1514))[0] == port.DropNone { // the backlog finds it, too
			}
			for range 50 {
				if _, _, err := peer.Recv(patience); err != nil {
					t.Fatal(err)
				}
			}
			peer.Close()
			testenv.Eventually(t, "it is gone", func() bool { return send(p, frame(4, 60))[0] == port.DropNoCarrier })
			awaitLink(t, p, false)
		}
		// It only waits: the port finds it where it was, or where it is named.
		var peer *dgramPeer
		as(t, nobody, home, func() error { peer = newDgramPeer(t, path, sock(home), false); return nil })
		testenv.Eventually(t, "a silent one is found", func() bool { return send(p, frame(5, 100))[0] == port.DropNone })
		if w, _, err := peer.Recv(patience); err != nil || number(w) != 5 {
			t.Fatal(err)
		}
		p.Close()
		peer.Close()
		os.Remove(path)
	}
}
