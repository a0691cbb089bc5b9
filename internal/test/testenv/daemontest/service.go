package daemontest

import (
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vswitch/vswitch/internal/handover"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// manager is the part of a service manager that keeps files for a service (FDSTORE=1 of
// sd_notify(3)) and passes them on at its next start (sd_listen_fds(3)). A nil one does nothing.
type manager struct {
	path string
	conn *net.UnixConn
	done chan struct{}

	mu    sync.Mutex
	store map[string][]*os.File // by name
}

func newManager(t testing.TB, path string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{path: path, conn: conn, done: make(chan struct{}), store: make(map[string][]*os.File)}
	go m.run()
	return m
}

func (m *manager) close() {
	if m == nil {
		return
	}
	m.conn.Close()
	<-m.done
	for name := range m.store {
		m.remove(name)
	}
}

func (m *manager) run() {
	defer close(m.done)
	for {
		b, oob := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4*64))
		n, oobn, _, _, err := m.conn.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		m.hear(strings.Split(string(b[:n]), "\n"), files(oob[:oobn]))
	}
}

// hear does what a message asks for.
func (m *manager) hear(assignments []string, files []*os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := "stored"
	for _, a := range assignments {
		if v, ok := strings.CutPrefix(a, "FDNAME="); ok {
			name = v
		}
	}
	switch {
	case slices.Contains(assignments, "FDSTOREREMOVE=1"):
		m.remove(name)
	case slices.Contains(assignments, "FDSTORE=1"):
		m.store[name] = append(m.store[name], files...)
		return
	}
	for _, f := range files {
		f.Close()
	}
}

func (m *manager) remove(name string) {
	for _, f := range m.store[name] {
		f.Close()
	}
	delete(m.store, name)
}

// files returns the descriptors of a message.
func files(oob []byte) (all []*os.File) {
	messages, _ := syscall.ParseSocketControlMessage(oob)
	for i := range messages {
		fds, _ := syscall.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			all = append(all, os.NewFile(uintptr(fd), "stored"))
		}
	}
	return all
}

// command returns a command that starts the service with what is kept: with copies, since a
// process that is no more may still have said that files are to be forgotten. After the start,
// close the command's ExtraFiles.
func (m *manager) command(t testing.TB, ns *testenv.Netns, name string, args ...string) *exec.Cmd {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	// The number of the process is known when it runs.
	cmd := ns.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", name}, args...)...)
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.store)) {
		for _, f := range m.store[name] {
			fd, err := handover.DupOf(f)
			if err != nil {
				t.Fatal(err)
			}
			names, cmd.ExtraFiles = append(names, name), append(cmd.ExtraFiles, os.NewFile(uintptr(fd), name))
		}
	}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.path)
	if len(names) > 0 {
		cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	}
	return cmd
}

// Stored returns the names of what the service manager keeps, in order.
func (d *Daemon) Stored() []string {
	d.manager.mu.Lock()
	defer d.manager.mu.Unlock()
	var names []string
	for name, files := range d.manager.store {
		for range files {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Keep has the service manager keep a file that the switch does not know.
func (d *Daemon) Keep(name string, f *os.File) {
	d.manager.hear([]string{"FDSTORE=1", "FDNAME=" + name}, []*os.File{f})
}
