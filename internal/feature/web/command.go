package web

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/httpd"
)

// flags are the flags of `vswitch web`.
type flags struct {
	At httpd.Address `json:"at,omitzero" arg:"ADDRESS:PORT" default:"127.0.0.1 and a free port" help:"serve the page here, even if the daemon serves it"`
}

var command = feature.Command{
	Name:  "web",
	Usage: "show the switch in a browser",
	Description: `Serves a page for browsers until interrupted, and prints its address: ports with their
rates, stations, VLANs, the spanning tree and neighbours, drops in words, events. The
page only reads. The address ends in a token, and is good for whoever has it.

If the daemon serves the page (--web of run and set), the command prints that address
and ends.

From another machine, forward the port: ssh -L 8471:127.0.0.1:8471 HOST.

Example:

    vswitch web
    vswitch set --web 127.0.0.1:8471 && vswitch web`,
	Flags: flags{},
	Run:   serve,
}

func serve(c *feature.Call) error {
	at := c.Flags.(flags).At
	var daemon Served
	if err := c.Client.Do(c.Context, http.MethodGet, "/v1/web", nil, &daemon); err != nil {
		return err
	}
	if daemon.URL != "" && !at.IsValid() {
		return show(c, daemon)
	}
	address := "127.0.0.1:0"
	if at.IsValid() {
		address = at.String()
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("the page cannot be served: %w", err)
	}
	p := newPage(proxy{c.Client})
	if err := show(c, Served{URL: "http://" + ln.Addr().String() + "/", Token: p.token()}); err != nil {
		return err
	}
	fmt.Fprintln(c.Err, "The page is served until you press Ctrl-C.")
	s := httpd.New(p, slog.New(slog.DiscardHandler))
	defer s.Close()
	go func() { <-c.Context.Done(); s.Close() }()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// show prints the address of a page.
func show(c *feature.Call, s Served) error {
	return c.Show(s, func(w io.Writer) { fmt.Fprintln(w, s.URL+"#token="+s.Token) })
}

// proxy passes calls on to the daemon.
type proxy struct{ *api.Client }

// ServeHTTP implements http.Handler.
func (p proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := p.Stream(r.Context(), r.Method, r.URL.RequestURI(), nil)
	if err != nil {
		feature.Refuse(w, err)
		return
	}
	defer body.Close()
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == events {
		w.Header().Set("Content-Type", "application/x-ndjson")
	}
	out := http.NewResponseController(w)
	for b := make([]byte, 32<<10); ; {
		if out.Flush() != nil { // also before the first event
			return
		}
		n, err := body.Read(b)
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				return
			}
		}
		if err == io.EOF {
			return
		} else if err != nil {
			panic(http.ErrAbortHandler) // so that the client does not take a part for the whole
		}
	}
}
