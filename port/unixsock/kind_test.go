package unixsock_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/unixsock"
)

var kinds = []port.Kind{unixsock.Stream{}, unixsock.Dgram{}}

func TestCheck(t *testing.T) {
	for _, k := range kinds {
		for want, path := range map[string]string{
			"needs a socket":  "",
			"is not absolute": "vm0.sock",
			"of at most 107":  "/" + strings.Repeat("x", 107),
		} {
			err := k.Check(port.Spec{Name: "vm0", Settings: unixsock.Settings{Socket: port.Socket{Path: path}}})
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %q: %v, want it to say %q", k.Name(), path, err, want)
			}
		}
		for _, path := range []string{"/run/vm0.sock", "/" + strings.Repeat("x", 103)} {
			if err := k.Check(port.Spec{Name: "vm0", Settings: unixsock.Settings{Socket: port.Socket{Path: path}}}); err != nil {
				t.Errorf("%s %q: %v", k.Name(), path, err)
			}
		}
	}
	// Beside a dgram port's socket lies its peer's.
	for _, client := range []bool{false, true} {
		long := port.Spec{Name: "vm0", Settings: unixsock.Settings{Socket: port.Socket{Path: "/" + strings.Repeat("x", 104), Client: client}}}
		if err := (unixsock.Dgram{}).Check(long); err == nil {
			t.Errorf("client %v: there is no path left for the other end", client)
		}
	}
	for _, k := range []port.Kind{unixsock.Stream{Dir: "/run/x"}, unixsock.Dgram{Dir: "/run/x"}} {
		if err := k.Check(port.Spec{Name: "vm0"}); err != nil {
			t.Errorf("%s in a directory: %v", k.Name(), err)
		}
	}
}

// Open makes the socket and what leads to it, and Delete takes the socket back unless
// it is another's by then.
func TestSocketIsMade(t *testing.T) {
	for _, k := range kinds {
		s := port.Spec{Name: "vm0", Settings: unixsock.Settings{Socket: port.Socket{Path: filepath.Join(tempDir(t), "a/b/vm0.sock")}}}
		var trace port.Trace
		for range 2 { // the first leaves its socket to the second
			p, err := k.Open(s, &trace)
			if err != nil || !trace.Created {
				t.Fatalf("%s: %+v, %v", k.Name(), trace, err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		other, err := k.Open(s, new(port.Trace))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Delete(s, trace); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(pathOf(s)); err != nil {
			t.Errorf("Delete took the socket of another: %v", err)
		}
		other.Close()
		for range 2 {
			if err := k.Delete(s, trace); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Lstat(pathOf(s)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Delete leaves the socket: %v", err)
		}
	}
}

// What is in the way of the socket stays, and the error leaves no trace.
func TestSocketInTheWay(t *testing.T) {
	for _, k := range kinds {
		file := filepath.Join(tempDir(t), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, client := range []bool{false, true} {
			var trace port.Trace
			p, err := k.Open(port.Spec{Name: "vm0", Settings: unixsock.Settings{Socket: port.Socket{Path: file, Client: client}}}, &trace)
			if err == nil {
				p.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "is no socket") || strings.Contains(err.Error(), "\n") || !reflect.DeepEqual(trace, port.Trace{}) {
				t.Errorf("%s, client %v: %v, trace %+v", k.Name(), client, err, trace)
			}
		}
	}
}

// Both kinds do all of this as a user without any right.
func TestPlainUser(t *testing.T) {
	if os.Getenv("UNIXSOCK_PLAIN_USER") != "" {
		if os.Geteuid() == 0 {
			t.Fatal("this is root")
		}
		for _, k := range kinds {
			_, err := k.Open(port.Spec{Name: "vm0", Settings: unixsock.Settings{Socket: port.Socket{Path: "/root-only-" + k.Name() + "/s"}}}, new(port.Trace))
			if err == nil || !strings.Contains(err.Error(), "permission denied; name a path") {
				t.Errorf("%s where one may not write: %v", k.Name(), err)
			}
		}
		dir := os.Getenv("UNIXSOCK_PLAIN_USER")
		p := open(t, unixsock.Stream{}, port.Spec{Settings: unixsock.Settings{Socket: port.Socket{Path: filepath.Join(dir, "closed"), Client: true}}})
		testenv.Eventually(t, "a client says that it may not connect", func() bool {
			err := linkError(p)
			return err != nil && strings.Contains(err.Error(), "permission denied; give")
		})
		return
	}
	testenv.Root(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// go test keeps the program where nobody else may look.
	program, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "test"), program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "closed"))
	if err == nil {
		defer l.Close()
		err = os.Chmod(filepath.Join(dir, "closed"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, "test"), "-test.timeout=2m",
		"-test.run=^(TestPlainUser|TestSocket.*|TestStreamServer|TestStreamClient|TestDgram|TestDgramConnected|TestDgramClient)$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "UNIXSOCK_PLAIN_USER="+dir, "TMPDIR=/tmp")
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as a plain user: %v\n%s", err, out)
	}
}

// Example opens a port that QEMU connects to.
func Example() {
	dir, err := os.MkdirTemp("", "us")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	k := unixsock.Stream{Dir: dir}
	var trace port.Trace
	p, err := k.Open(port.Spec{Name: "vm0"}, &trace)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	// qemu-system-x86_64 -netdev stream,id=n0,server=off,addr.type=unix,addr.path=DIR/vm0.sock …
	fmt.Println("a peer is there:", p.(port.Linked).Link())
	// Output: a peer is there: false
}

// pathOf is the socket that a test named.
func pathOf(s port.Spec) string { return port.SettingsOf[unixsock.Settings](s).Path }
