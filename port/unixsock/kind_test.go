package unixsock_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/unixsock"
)

var kinds = []port.Kind{unixsock.Stream{}, unixsock.Dgram{}}

func TestCheck(t *testing.T) {
	for _, k := range kinds {
		good := port.Spec{Name: "vm0", Kind: k.Name(), Path: "/run/vm0.sock"}
		if err := k.Check(good); err != nil {
			t.Errorf("%s: %v", k.Name(), err)
		}
		for want, change := range map[string]func(*port.Spec){
			"name":              func(s *port.Spec) { s.Name = "a/b" },
			"needs a socket":    func(s *port.Spec) { s.Path = "" },
			"from the root":     func(s *port.Spec) { s.Path = "vm0.sock" },
			"of at most 107":    func(s *port.Spec) { s.Path = "/" + strings.Repeat("x", 107) },
			"leave --queues":    func(s *port.Spec) { s.Queues = 2 },
			"leave --owner":     func(s *port.Spec) { s.Owner = "root" },
			"leave --owner and": func(s *port.Spec) { s.Group = "kvm" },
			"leave --mtu":       func(s *port.Spec) { s.MTU = 1500 },
			"no address":        func(s *port.Spec) { s.Address = []string{"10.0.0.1/24"} },
			"no namespace":      func(s *port.Spec) { s.Netns = "x" },
			"leave --exclusive": func(s *port.Spec) { s.Exclusive = true },
			"leave --poll":      func(s *port.Spec) { s.Poll = port.PollBusy },
		} {
			s := good
			change(&s)
			if err := k.Check(s); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %+v: %v, want it to say %q", k.Name(), s, err, want)
			}
		}
		good.Path = "/" + strings.Repeat("x", 103)
		if err := k.Check(good); err != nil {
			t.Errorf("%s: the longest path: %v", k.Name(), err)
		}
	}
	// Beside a dgram port's socket lies its peer's.
	for _, client := range []bool{false, true} {
		long := port.Spec{Name: "vm0", Path: "/" + strings.Repeat("x", 104), Client: client}
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

func TestSet(t *testing.T) {
	for _, k := range []port.Kind{unixsock.Stream{Dir: "/d"}, unixsock.Dgram{Dir: "/d"}} {
		from := port.Spec{Name: "vm0", Path: "/d/vm0.sock"}
		for _, to := range []port.Spec{from, {Name: "vm0"}} {
			if err := k.Set(nil, from, to); err != nil {
				t.Errorf("%s: the same socket: %v", k.Name(), err)
			}
		}
		for _, to := range []port.Spec{{Name: "vm0", Path: "/d/vm1.sock"}, {Name: "vm0", Client: true}} {
			if err := k.Set(nil, from, to); err == nil {
				t.Errorf("%s: another socket is taken: %+v", k.Name(), to)
			}
		}
	}
}

// Open makes the socket and what leads to it, and Delete takes the socket back unless
// it is another's by then.
func TestSocketIsMade(t *testing.T) {
	for _, k := range kinds {
		s := port.Spec{Name: "vm0", Path: filepath.Join(tempDir(t), "a/b/vm0.sock")}
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
		if _, err := os.Stat(s.Path); err != nil {
			t.Errorf("Delete took the socket of another: %v", err)
		}
		other.Close()
		for range 2 {
			if err := k.Delete(s, trace); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Lstat(s.Path); !errors.Is(err, fs.ErrNotExist) {
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
			p, err := k.Open(port.Spec{Name: "vm0", Path: file, Client: client}, &trace)
			if err == nil {
				p.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "is no socket") || strings.Contains(err.Error(), "\n") || trace != (port.Trace{}) {
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
			_, err := k.Open(port.Spec{Name: "vm0", Path: "/root-only-" + k.Name() + "/s"}, new(port.Trace))
			if err == nil || !strings.Contains(err.Error(), "permission denied; name a path") {
				t.Errorf("%s where one may not write: %v", k.Name(), err)
			}
		}
		dir := os.Getenv("UNIXSOCK_PLAIN_USER")
		p := open(t, unixsock.Stream{}, port.Spec{Path: filepath.Join(dir, "closed"), Client: true})
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
