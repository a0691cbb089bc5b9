// Package sdnotify tells the service manager that started the process how it is, and has it keep
// files for the next one: sd_notify(3), sd_watchdog_enabled(3), sd_pid_notify_with_fds(3). Its
// methods may be called from any goroutine and never wait; a manager that does not read loses
// messages. Without a service manager they do nothing.
package sdnotify

import (
	"errors"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// Notifier sends messages to the service manager. A nil Notifier sends none.
type Notifier struct {
	messages   chan message
	watchdog   time.Duration
	quit, done chan struct{}
}

// message is a datagram with a descriptor of its own; -1: none.
type message struct {
	text string
	fd   int
}

// room is how many messages wait for the manager: as many as there may be files of ports.
const room = 1 << 13

// New returns the Notifier for the environment, and removes the variables from it, so that no
// other process of the switch speaks in its name. It is nil if there is no service manager.
func New() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	usec, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // cannot fail: the name is valid
	}
	if path == "" {
		return nil, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}) // '@' is an abstract one
	if err != nil {
		return nil, err
	}
	n := &Notifier{messages: make(chan message, room), quit: make(chan struct{}), done: make(chan struct{})}
	if us, err := strconv.ParseUint(usec, 10, 53); err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	go n.run(conn)
	return n, nil
}

// run sends messages. A datagram waits for room in the reader's queue.
func (n *Notifier) run(conn *net.UnixConn) {
	defer close(n.done)
	defer conn.Close()
	for {
		select {
		case m := <-n.messages:
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			m.send(conn) // a message that is lost: see the package
			continue
		case <-n.quit:
		}
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		for range len(n.messages) {
			m := <-n.messages
			m.send(conn)
		}
		return
	}
}

// send sends a message and closes its descriptor.
func (m message) send(conn *net.UnixConn) {
	var rights []byte
	if m.fd >= 0 {
		defer syscall.Close(m.fd)
		rights = syscall.UnixRights(m.fd)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool { // package net sends no rights by a connected datagram socket
		return !errors.Is(syscall.Sendmsg(int(fd), []byte(m.text), rights, nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT), syscall.EAGAIN)
	})
}

// Send sends assignments such as READY=1, one a line.
func (n *Notifier) Send(text string) { n.queue(message{text, -1}) }

// queue queues a message, or drops it.
func (n *Notifier) queue(m message) {
	if n != nil {
		select {
		case n.messages <- m:
			return
		default:
		}
	}
	if m.fd >= 0 {
		syscall.Close(m.fd)
	}
}

// Store has the manager keep a file for the process that it starts after this one has died; see
// Stored. The descriptor stays the caller's. A name has one file; its former one is removed.
func (n *Notifier) Store(name string, fd int) {
	if n == nil {
		return
	}
	own, err := fcntl(fd, syscall.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	n.Remove(name)
	// Whatever happens to the file's other end does not concern the manager.
	n.queue(message{"FDSTORE=1\nFDPOLL=0\nFDNAME=" + name, own})
}

// Remove has the manager keep no file of that name.
func (n *Notifier) Remove(name string) { n.Send("FDSTOREREMOVE=1\nFDNAME=" + name) }

// Watchdog returns how often the manager wants to hear WATCHDOG=1; 0: it does not.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Close sends what is left, and nothing afterwards.
func (n *Notifier) Close() {
	if n == nil {
		return
	}
	close(n.quit)
	<-n.done
}
