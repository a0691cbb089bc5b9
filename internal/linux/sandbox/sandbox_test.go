package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SANDBOX_TEST_DIR"); dir != "" {
		inside(dir)
		return
	}
	os.Exit(m.Run())
}

// inside enters the sandbox and prints what it cannot do, a line for each.
func inside(dir string) {
	netlink, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		fmt.Println("before:", err)
	}
	unix.Close(netlink)
	// Threads that are there before must be restricted as well.
	release := make(chan struct{})
	results := make(chan error, 4)
	var ready sync.WaitGroup
	for range cap(results) {
		ready.Add(1)
		go func() {
			ready.Done()
			<-release
			_, err := os.ReadFile("/etc/shadow")
			results <- err
		}()
	}
	ready.Wait()
	inForce, err := Enter([]string{filepath.Join(dir, "state")})
	fmt.Println("in force:", strings.Join(inForce, ","))
	if err != nil {
		fmt.Println("not in force:", err)
	}
	close(release)
	for range cap(results) {
		if err := <-results; !errors.Is(err, fs.ErrPermission) {
			fmt.Println("/etc/shadow:", err)
		}
	}
	must := func(what string, err error) {
		if err != nil {
			fmt.Println("denied:", what, err)
		}
	}
	mustNot := func(what string, err error) {
		if !errors.Is(err, fs.ErrPermission) {
			fmt.Println("allowed:", what, err)
		}
	}
	write := func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }
	must("write the state", write(filepath.Join(dir, "state", "file")))
	must("replace the state", os.Rename(filepath.Join(dir, "state", "file"), filepath.Join(dir, "state", "other")))
	must("remove the state", os.Remove(filepath.Join(dir, "state", "other")))
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	must("make a socket elsewhere", err)
	if err == nil {
		l.Close()
	}
	_, err = os.ReadFile("/etc/passwd")
	must("read accounts", err)
	_, err = os.ReadFile("/proc/sys/kernel/random/boot_id")
	must("read /proc", err)
	if f, err := os.OpenFile("/proc/sys/net/ipv4/conf/lo/arp_ignore", os.O_WRONLY, 0); err == nil {
		f.Close()
	} else {
		must("write sysctls", err)
	}
	if fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		req, err := unix.NewIfreq("sandbox%d")
		must("name a TAP", err)
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		must("make a TAP", unix.IoctlIfreq(fd, unix.TUNSETIFF, req))
		unix.Close(fd)
	} else {
		must("open /dev/net/tun", err)
	}
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must("make a packet socket", err)
	unix.Close(s)

	mustNot("write elsewhere", write(filepath.Join(dir, "elsewhere")))
	mustNot("write to /etc", write("/etc/vswitch-sandbox-test"))
	mustNot("remove from /etc", os.Remove("/etc/hostname"))
	mustNot("link", os.Symlink("x", filepath.Join(dir, "state", "link")))
	mustNot("execute", exec.Command("/bin/true").Run())
	mustNot("execute", unix.Exec("/bin/true", []string{"true"}, nil))
	mustNot("mount", unix.Mount("tmpfs", filepath.Join(dir, "state"), "tmpfs", 0, ""))
	mustNot("leave the namespace", unix.Unshare(unix.CLONE_NEWNS))
	mustNot("load a module", unix.DeleteModule("nosuchmodule", 0))
	mustNot("set the host's name", unix.Sethostname([]byte("x")))
	mustNot("set the clock", unix.Settimeofday(&unix.Timeval{Sec: 1}))
	var st unix.CapUserData
	var data [2]unix.CapUserData
	must("read capabilities", unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]))
	st = data[0]
	if st.Permitted&(1<<unix.CAP_SYS_MODULE|1<<unix.CAP_SETUID|1<<unix.CAP_SYS_PTRACE) != 0 {
		fmt.Printf("allowed: capabilities %#x\n", st.Permitted)
	}
	if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SETUID, 0, 0, 0); err != nil || v != 0 {
		fmt.Println("allowed: to get CAP_SETUID back", v, err)
	}
}

// In the sandbox a switch's work goes on and other things fail, on all threads.
func TestSandbox(t *testing.T) {
	testenv.Root(t)
	if abi() == 0 {
		t.Skip("left out: needs a kernel with landlock")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := testenv.NewNetns(t).Command(self)
	cmd.Env = append(os.Environ(), "SANDBOX_TEST_DIR="+dir)
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 1 || !strings.HasPrefix(lines[0], "in force: ") {
		t.Fatalf("%v:\n%s", err, out)
	}
	parts := strings.Split(strings.TrimPrefix(lines[0], "in force: "), ",")
	if !slices.Contains(parts, "seccomp") || !slices.Contains(parts, "capabilities") {
		t.Errorf("in force is %q", parts)
	}
}
