package sdnotify

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A file that is stored comes to the manager by its name, after the name's former one is removed.
func TestStore(t *testing.T) {
	c := manager(t, t.TempDir()+"/s")
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n.Store("port-vm0", int(f.Fd()))
	n.Remove("port-vm1")
	n.Close()
	for _, want := range []string{"FDSTOREREMOVE=1\nFDNAME=port-vm0", "FDSTORE=1\nFDPOLL=0\nFDNAME=port-vm0", "FDSTOREREMOVE=1\nFDNAME=port-vm1"} {
		b, oob := make([]byte, 256), make([]byte, syscall.CmsgSpace(4))
		size, oobn, _, _, err := c.ReadMsgUnix(b, oob)
		if err != nil || string(b[:size]) != want {
			t.Fatalf("got %q, want %q: %v", b[:size], want, err)
		}
		if carries := strings.HasPrefix(want, "FDSTORE="); carries != (oobn > 0) {
			t.Errorf("%q comes with %d bytes of rights", want, oobn)
		}
		if messages, _ := syscall.ParseSocketControlMessage(oob[:oobn]); len(messages) == 1 {
			fds, _ := syscall.ParseUnixRights(&messages[0])
			var is, was syscall.Stat_t
			if len(fds) != 1 || syscall.Fstat(fds[0], &is) != nil || syscall.Fstat(int(f.Fd()), &was) != nil || is.Rdev != was.Rdev {
				t.Errorf("another file comes")
			}
			for _, fd := range fds {
				syscall.Close(fd)
			}
		}
	}
	var none *Notifier
	none.Store("port-vm0", int(f.Fd()))
	none.Remove("port-vm0")
}

// What the manager kept is for this process alone, and for no child of it.
func TestStored(t *testing.T) {
	if os.Getenv("SDNOTIFY_CHILD") != "" {
		for _, f := range Stored() {
			flags, _ := fcntl(f.FD, syscall.F_GETFD, 0)
			t.Logf("file %d %q %v", f.FD, f.Name, flags&syscall.FD_CLOEXEC != 0)
		}
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
			if _, there := os.LookupEnv(name); there {
				t.Errorf("%s is there", name)
			}
		}
		return
	}
	for _, c := range []struct {
		pid, count, names string
		want              int
	}{
		{"$$", "2", "a:b", 2}, {"$$", "2", "a", 2}, {"1", "2", "a:b", 0}, {"$$", "-1", "", 0}, {"$$", "x", "", 0}, {"", "", "", 0},
	} {
		cmd := exec.Command("sh", "-c", "LISTEN_PID="+c.pid+` exec "$@"`, "sh", os.Args[0], "-test.run=^TestStored$", "-test.v")
		cmd.Env = append(os.Environ(), "SDNOTIFY_CHILD=1", "LISTEN_FDS="+c.count, "LISTEN_FDNAMES="+c.names)
		for range 2 {
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if n := strings.Count(string(out), " true\n"); n != c.want || c.want > 0 && !strings.Contains(string(out), `file 3 "a" true`) {
			t.Errorf("%+v: %s", c, out)
		}
	}
}
