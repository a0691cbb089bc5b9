package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/vswitch/vswitch/port"
)

// ErrNoDaemon is wrapped by a Client's errors if nobody serves its socket or the daemon does
// not answer.
var ErrNoDaemon = errors.New("no vswitch daemon answers")

// Timeout is how long a Client waits for an answer. The daemon gives up on its disk earlier,
// with an error of its own.
const Timeout = 27 * time.Second

// Client calls the daemon behind one socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient returns a client for the daemon that serves socket. It does not connect.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: Timeout}}
}

// Close closes idle connections. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Switch returns the daemon and its totals.
func (c *Client) Switch(ctx context.Context) (sw Switch, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/switch", nil, &sw)
	return sw, err
}

// SetSwitch changes settings of the running switch. Settings not named stay; nil unsets one.
func (c *Client) SetSwitch(ctx context.Context, req Settings) (sw Switch, err error) {
	if req == nil {
		req = Settings{}
	}
	err = c.Do(ctx, http.MethodPatch, "/v1/switch", req, &sw)
	return sw, err
}

// Ports returns all ports by number.
func (c *Client) Ports(ctx context.Context) (ports []Port, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/ports", nil, &ports)
	return ports, err
}

// Port returns the port with that name.
func (c *Client) Port(ctx context.Context, name string) (p Port, err error) {
	err = c.Do(ctx, http.MethodGet, portPath(name), nil, &p)
	return p, err
}

// AddPort adds a port and returns it once it is attached.
func (c *Client) AddPort(ctx context.Context, req AddPort) (p Port, err error) {
	err = c.Do(ctx, http.MethodPost, "/v1/ports", req, &p)
	return p, err
}

// SetPort changes settings of a running port. Settings not named stay; nil unsets one. Any
// change, even an empty one, re-enables a port that a guard shut down.
func (c *Client) SetPort(ctx context.Context, name string, req Settings) (p Port, err error) {
	if req == nil {
		req = Settings{}
	}
	err = c.Do(ctx, http.MethodPatch, portPath(name), req, &p)
	return p, err
}

// DelPort removes a port, and the device if the switch made it. While the port's machine is
// attached, it fails with CodeInUse.
func (c *Client) DelPort(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, portPath(name), nil, nil)
}

// ForceDelPort is DelPort even while the port's machine is attached: it loses its network.
func (c *Client) ForceDelPort(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, portPath(name)+"?force=true", nil, nil)
}

// Drops returns the reasons why the daemon drops frames.
func (c *Client) Drops(ctx context.Context) (reasons []DropReason, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/drops", nil, &reasons)
	return reasons, err
}

// FDB returns the forwarding database by VLAN and address.
func (c *Client) FDB(ctx context.Context) (entries []FDBEntry, err error) {
	err = c.Do(ctx, http.MethodGet, "/v1/fdb", nil, &entries)
	return entries, err
}

// AddFDB adds a static entry.
func (c *Client) AddFDB(ctx context.Context, req AddFDB) (e FDBEntry, err error) {
	err = c.Do(ctx, http.MethodPost, "/v1/fdb", req, &e)
	return e, err
}

// DelFDB removes the learned or static entry of an address. VLAN 0 means 1.
func (c *Client) DelFDB(ctx context.Context, mac port.MAC, vlan uint16) error {
	path := "/v1/fdb/" + mac.String()
	if vlan != 0 {
		path += "?vlan=" + strconv.Itoa(int(vlan))
	}
	return c.Do(ctx, http.MethodDelete, path, nil, nil)
}

// FlushFDB forgets learned entries and returns their number.
func (c *Client) FlushFDB(ctx context.Context, req FlushFDB) (int, error) {
	var f Flushed
	err := c.Do(ctx, http.MethodPost, "/v1/fdb/flush", req, &f)
	return f.Flushed, err
}

func portPath(name string) string { return "/v1/ports/" + url.PathEscape(name) }

// Do calls the API: it sends req as JSON, if it is not nil, and decodes the answer into resp,
// if that is not nil.
func (c *Client) Do(ctx context.Context, method, path string, req, resp any) error {
	a, err := c.send(ctx, &c.http, method, path, req)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if resp == nil {
		return nil
	}
	if err := json.NewDecoder(a.Body).Decode(resp); isTimeout(err) {
		return c.explain(ctx, method, err)
	} else if err != nil {
		return c.stranger(err)
	}
	return nil
}

// Stream calls the API for an answer that goes on until ctx ends or the caller closes it. Only
// the start of the answer must come within Timeout.
func (c *Client) Stream(ctx context.Context, method, path string, req any) (io.ReadCloser, error) {
	patient := c.http
	patient.Timeout = 0
	within, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(Timeout, func() { cancel(os.ErrDeadlineExceeded) })
	a, err := c.send(within, &patient, method, path, req)
	if !t.Stop() && err == nil {
		a.Body.Close()
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		if context.Cause(within) == os.ErrDeadlineExceeded {
			err = c.explain(ctx, method, os.ErrDeadlineExceeded)
		}
		cancel(nil)
		return nil, err
	}
	return stream{a.Body, cancel}, nil
}

// stream is the body of an answer that frees its context when it is closed.
type stream struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (s stream) Close() error {
	err := s.ReadCloser.Close()
	s.cancel(nil)
	return err
}

// send sends a request, with req as JSON if it is not nil. It returns an answer that is not an
// error; the caller closes its body.
func (c *Client) send(ctx context.Context, by *http.Client, method, path string, req any) (*http.Response, error) {
	var body io.Reader
	if req != nil {
		b, err := json.Marshal(req)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	// HTTP requires a host; the connection goes to the socket.
	r, err := http.NewRequestWithContext(ctx, method, "http://vswitch"+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	a, err := by.Do(r)
	if err != nil {
		return nil, c.explain(ctx, method, err)
	}
	if a.StatusCode < 300 {
		return a, nil
	}
	defer a.Body.Close()
	e := new(Error)
	if err := json.NewDecoder(a.Body).Decode(e); isTimeout(err) {
		return nil, c.explain(ctx, method, err)
	} else if err != nil || e.Message == "" {
		return nil, c.stranger(errors.New(a.Status))
	}
	return nil, e
}

// stranger returns the error for an answer that no vswitch daemon gives.
func (c *Client) stranger(err error) error {
	return fmt.Errorf("%s is not the socket of a vswitch daemon: %w", c.socket, err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// explain explains why a call failed.
func (c *Client) explain(ctx context.Context, method string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the made-up URL
	}
	done := ""
	if method != http.MethodGet {
		done = "; what was asked for may still be done"
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("asking the daemon at %s: %w", c.socket, ctx.Err())
	case isTimeout(err), errors.Is(err, syscall.EAGAIN): // EAGAIN: too many wait for it already
		return fmt.Errorf("%w at %s, though its socket is held, within %v: it is stopped or stuck, see its log%s", ErrNoDaemon, c.socket, c.http.Timeout, done)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("the daemon at %s ended without an answer; see its log%s", c.socket, done)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w at %s; start one with `vswitch run`, or name the right one with --name or --socket", ErrNoDaemon, c.socket)
	case errors.Is(err, syscall.EINVAL):
		return fmt.Errorf("%w at %s: no socket has such a long path; name another with --socket", ErrNoDaemon, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to open %s; become root, or join the group given to `vswitch run --socket-group`", c.socket)
	}
	return fmt.Errorf("asking the daemon at %s: %w", c.socket, err)
}
