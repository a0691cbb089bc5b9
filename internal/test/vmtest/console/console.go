// Package console runs commands in a guest through the shell on its serial console, which
// QEMU offers as a unix socket (-serial unix:PATH,server=on,wait=off). It expects the shell
// of guestimg's init. A Console is used from one goroutine at a time, except for Log, which
// any may call.
package console

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Console is a connection to one guest's serial console.
type Console struct {
	conn net.Conn

	mu   sync.Mutex
	log  []byte        // everything received since the connection was made
	more chan struct{} // signalled when log grew or ended
	end  error         // why reading ended
}

// ExitError is the failure of a command in the guest.
type ExitError struct {
	Command string
	Code    int
	Output  string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("guest: %s: exit status %d: %s", e.Command, e.Code, strings.TrimSpace(e.Output))
}

// Dial connects to the socket at path as soon as QEMU has made it.
func Dial(ctx context.Context, path string) (*Console, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			c := &Console{conn: conn, more: make(chan struct{}, 1)}
			go c.read()
			return c, nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return nil, fmt.Errorf("no console at %s: %w", path, err)
		}
	}
}

func (c *Console) read() {
	buf := make([]byte, 4096)
	for {
		n, err := c.conn.Read(buf)
		c.mu.Lock()
		// The line discipline writes \r\n for every newline.
		c.log = append(c.log, bytes.ReplaceAll(buf[:n], []byte("\r"), nil)...)
		c.end = err
		c.mu.Unlock()
		select {
		case c.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// Log returns everything the guest wrote since the connection was made.
func (c *Console) Log() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.log)
}

// Close closes the connection; the guest keeps running.
func (c *Console) Close() error { return c.conn.Close() }

// Ready waits until the guest's shell answers.
func (c *Console) Ready(ctx context.Context) error {
	id := rand.Text()
	for {
		// A booting guest can lose any part of its input, so fragments of the line must do no
		// harm. Its echo has ${x} in the marker.
		if _, err := fmt.Fprintf(c.conn, "echo @@${x}%s@@\n", id); err != nil {
			return fmt.Errorf("console: %w", err)
		}
		try, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err := c.await(try, 0, "@@"+id+"@@")
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("guest is not up: %w", ctx.Err())
		}
		if try.Err() == nil {
			return err
		}
	}
}

// Run runs command in the guest's shell without standard input and returns its standard
// output and error. A failing command gives an *ExitError.
func (c *Console) Run(ctx context.Context, command string) (string, error) {
	id := rand.Text()
	// printf assembles the markers, so that an echo of the line contains none.
	line := fmt.Sprintf("printf '\\n@@%%s<' %s; ( %s\n) </dev/null 2>&1; printf '@@%%s>%%d@@\\n' %s $?\n", id, command, id)
	// n_tty truncates a line at 4096 bytes.
	for part := range strings.Lines(line) {
		if len(part) > 4000 {
			return "", fmt.Errorf("guest: a line of %d bytes is too long for a console", len(part))
		}
	}
	from := len(c.Log())
	if _, err := c.conn.Write([]byte(line)); err != nil {
		return "", fmt.Errorf("console: %w", err)
	}
	start, err := c.await(ctx, from, "@@"+id+"<")
	if err != nil {
		return "", fmt.Errorf("guest: %s: %w", command, err)
	}
	closing := "@@" + id + ">"
	end, err := c.await(ctx, start, closing)
	if err != nil {
		return "", fmt.Errorf("guest: %s: %w", command, err)
	}
	last, err := c.await(ctx, end, "@@")
	if err != nil {
		return "", fmt.Errorf("guest: %s: %w", command, err)
	}
	log := c.Log()
	out := log[start : end-len(closing)]
	code, err := strconv.Atoi(log[end : last-len("@@")])
	if err != nil {
		return out, fmt.Errorf("guest: %s: exit status: %w", command, err)
	}
	if code != 0 {
		return out, &ExitError{Command: command, Code: code, Output: out}
	}
	return out, nil
}

// await waits for text in the log after from and returns where it ends.
func (c *Console) await(ctx context.Context, from int, text string) (int, error) {
	for {
		c.mu.Lock()
		i := bytes.Index(c.log[from:], []byte(text))
		end := c.end
		c.mu.Unlock()
		if i >= 0 {
			return from + i + len(text), nil
		}
		if end != nil {
			return 0, fmt.Errorf("the console ended: %w", end)
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Rebooted waits until init has started a shell after the first from bytes of the log. Nothing
// is sent meanwhile: a shell that gets a fragment of a command waits for its rest.
func (c *Console) Rebooted(ctx context.Context, from int) error {
	_, err := c.await(ctx, from, " is ready\n") // init.sh
	return err
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
