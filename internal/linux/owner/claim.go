package owner

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Claim makes a process the only switch of its name that uses the devices of a network
// namespace. Marks contain only the name, so two such switches would share devices without
// noticing. A claim is an abstract unix socket, which the kernel removes with the process.
// It answers each connection with the path of the switch's control socket. Any goroutine
// may use it.
type Claim struct {
	name, socket string

	mu sync.Mutex
	ln net.Listener // nil: not taken

	err   error // what Take returns until again
	again time.Time

	wg sync.WaitGroup
}

// NewClaim returns a claim that is not taken. socket is the switch's control socket.
func NewClaim(name, socket string) *Claim { return &Claim{name: name, socket: socket} }

func (c *Claim) address() *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: "@vswitch/" + c.name}
}

// Limits of the answer of another holder: its time and its length in bytes.
const (
	askWait   = time.Second
	maxAnswer = 4096

	// patience is how long Take waits before it asks a holder that did not answer again,
	// since other callers wait meanwhile.
	patience = 5 * time.Second
)

// Take takes the claim, or returns an error that names the switch that holds it. Once
// taken, it is held until Close.
func (c *Claim) Take() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ln != nil {
		return nil
	}
	if time.Now().Before(c.again) {
		return c.err
	}
	for deadline := time.Now().Add(askWait); ; time.Sleep(10 * time.Millisecond) {
		ln, err := net.ListenUnix("unix", c.address())
		switch {
		case err == nil:
			c.ln = ln
			c.wg.Go(func() { c.answer(ln) })
			return nil
		case !errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("claiming the switch's name %s in this network namespace: %w", c.name, err)
		}
		answered, err := c.refused()
		switch {
		case answered || err == nil:
			return err
		case time.Now().After(deadline):
			c.err, c.again = err, time.Now().Add(patience)
			return err
		}
		// A killed predecessor is about to release it.
	}
}

// File returns the claim for another process, which receives it by Receive; nil if it is not taken.
// It is held until both have ended.
func (c *Claim) File() (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ln == nil {
		return nil, nil
	}
	return c.ln.(*net.UnixListener).File()
}

// Receive takes the claim that another process holds, and closes the file.
func (c *Claim) Receive(f *os.File) error {
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ln = ln
	c.wg.Go(func() { c.answer(ln) })
	return nil
}

// answer sends the path of the control socket to each connection, until the listener is
// closed.
func (c *Claim) answer(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(100 * time.Millisecond) // out of files, perhaps
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(askWait))
		_, _ = io.WriteString(conn, c.socket+"\n") // the socket's buffer has room for it
		conn.Close()
	}
}

// refused returns the error for a claim that another process holds; answered reports
// whether that process answered. A process without the rights of this one is ignored: it
// cannot use the same devices, and any user can take any abstract name, which must not
// keep a switch from its work.
func (c *Claim) refused() (answered bool, err error) {
	who := "another process"
	conn, err := net.DialTimeout("unix", c.address().Name, askWait)
	if err == nil {
		defer conn.Close()
		cred, err := peer(conn.(*net.UnixConn))
		if err == nil && cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
			return true, nil
		}
		if err == nil && cred.Pid != 0 {
			who = fmt.Sprint("process ", cred.Pid)
		}
		_ = conn.SetDeadline(time.Now().Add(askWait))
		path, _ := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadString('\n')
		if path = strings.TrimSpace(path); path != "" {
			answered = true
			who += fmt.Sprintf(" with the control socket %q", path)
		}
	}
	return answered, fmt.Errorf("another switch called %s uses devices of this network namespace: %s; stop that one, or give this one another name with `vswitch run --name`", c.name, who)
}

func peer(conn *net.UnixConn) (cred *syscall.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	failed := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	return cred, cmp.Or(failed, err)
}

// Close releases the claim.
func (c *Claim) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ln == nil {
		return nil
	}
	err := c.ln.Close()
	c.wg.Wait()
	c.ln = nil
	return err
}
