// Package sdnotify tells the service manager that started the process how it is: sd_notify(3)
// and sd_watchdog_enabled(3). Its methods may be called from any goroutine and never wait; a
// manager that does not read loses messages. Without a service manager they do nothing.
package sdnotify

import (
	"net"
	"os"
	"strconv"
	"time"
)

// Notifier sends messages to the service manager. A nil Notifier sends none.
type Notifier struct {
	messages   chan string
	watchdog   time.Duration
	quit, done chan struct{}
}

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
	n := &Notifier{messages: make(chan string, 16), quit: make(chan struct{}), done: make(chan struct{})}
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
	send := func(m string) {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write([]byte(m)) // a message that is lost: see the package
	}
	for {
		select {
		case m := <-n.messages:
			send(m)
			continue
		case <-n.quit:
		}
		for range len(n.messages) {
			send(<-n.messages)
		}
		return
	}
}

// Send sends assignments such as READY=1, one a line.
func (n *Notifier) Send(message string) {
	if n == nil {
		return
	}
	select {
	case n.messages <- message:
	default:
	}
}

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
