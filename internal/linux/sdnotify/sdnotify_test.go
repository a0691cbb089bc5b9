package sdnotify

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// manager is a service manager's socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("WATCHDOG_PID", "")
	return c
}

func read(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	b := make([]byte, 256)
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

func TestSend(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "s"), "@vswitch-sdnotify-" + strconv.Itoa(os.Getpid())} {
		c := manager(t, name)
		t.Setenv("WATCHDOG_USEC", "3000000")
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
		n, err := New()
		if err != nil {
			t.Fatal(err)
		}
		if n.Watchdog() != 3*time.Second {
			t.Errorf("the watchdog wants to hear every %v", n.Watchdog())
		}
		if _, there := os.LookupEnv("NOTIFY_SOCKET"); there {
			t.Error("children would inherit the socket")
		}
		n.Send("READY=1\nSTATUS=2 ports")
		n.Send("STOPPING=1")
		n.Close()
		for _, want := range []string{"READY=1\nSTATUS=2 ports", "STOPPING=1"} {
			if got := read(t, c); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n, err := New()
	if n != nil || err != nil {
		t.Fatalf("%v, %v", n, err)
	}
	n.Send("READY=1")
	n.Close()
	if n.Watchdog() != 0 {
		t.Error("a watchdog without a manager")
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if _, err := New(); err == nil {
		t.Error("no error for a socket that is absent")
	}
}

// A manager that reads nothing does not hold the sender up, and the watchdog of another
// process is not ours.
func TestManagerThatDoesNotRead(t *testing.T) {
	manager(t, filepath.Join(t.TempDir(), "s"))
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv("WATCHDOG_PID", "1")
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if n.Watchdog() != 0 {
		t.Error("the watchdog is another process's")
	}
	for range 10000 {
		n.Send("WATCHDOG=1")
	}
}
