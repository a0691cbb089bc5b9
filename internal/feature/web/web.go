// Package web shows the switch on a page in a browser: ports with their rates, stations, VLANs,
// the tree, drops, events. The page only reads: it is served beside the few calls of the API
// that it needs, to those who know a token. `vswitch web` serves it from the user's process, and
// with --web the daemon does.
package web

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/netip"
	"time"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/httpd"
)

// Settings are the settings of the page.
type Settings struct {
	Address httpd.Address `json:"web,omitzero" arg:"ADDRESS:PORT" help:"serve a page for browsers at this address, such as 127.0.0.1:8471; the command web prints it with its token"`
}

// Feature describes the page.
var Feature = feature.Feature{
	Name:    "web",
	Help:    "shows the switch in a browser",
	Switch:  Settings{},
	Learned: []string{"token"},
	New: func(h feature.Host, settings any) (feature.Instance, error) {
		return start(h, settings.(Settings).Address), nil
	},
	Routes: []feature.Route{{
		Method: "GET", Path: "/v1/web", ID: "getWeb",
		Help:   "Where the daemon serves the page for browsers, and the token that its users need",
		Answer: Served{},
		Handle: func(i feature.Instance, _ *http.Request) (any, error) { return i.(*server).served(), nil },
	}},
	Commands: []feature.Command{command},
}

// Served is the answer of GET /v1/web.
type Served struct {
	URL   string `json:"url" help:"empty: the daemon does not serve it"`
	Token string `json:"token"`
}

// server is the running feature.
type server struct {
	host  feature.Host
	page  *page
	tcp   httpd.Server
	at    httpd.Address
	renew func() // cancels the next renewal of the token; nil: none was due
}

// connections is how many connections by TCP there may be. A browser opens six at most.
const connections = 24

func start(h feature.Host, at httpd.Address) *server {
	s := &server{host: h, page: newPage(h.API()), at: at}
	s.tcp = httpd.Server{
		What: "pages for browsers", Path: "/", Handler: s.page, Connections: connections, Log: h.Log(), After: h.After,
	}
	s.tcp.Start(at)
	return s
}

// Set implements feature.Settable: an address that cannot be had is refused.
func (s *server) Set(settings any) error {
	to := settings.(Settings).Address
	if err := s.tcp.Set(to); err != nil {
		return err
	}
	s.at = to
	if s.renew != nil {
		s.renew()
		s.renew = nil
	}
	if !to.IsValid() {
		// Who had the old token has no part in what is served later. Not at once: a change that
		// fails is taken back.
		s.renew = s.host.After(time.Second, s.page.renew)
	}
	s.host.Save() // the token, too
	return nil
}

// Stop implements feature.Instance.
func (s *server) Stop() {
	if s.renew != nil {
		s.renew()
	}
	s.tcp.Stop()
}

// served says where the page is.
func (s *server) served() Served {
	if !s.at.IsValid() {
		return Served{Token: s.page.token()}
	}
	at := s.at.AddrPort
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(loopback(at.Addr()), at.Port())
	}
	return Served{URL: "http://" + at.String() + "/", Token: s.page.token()}
}

// loopback returns the loopback address of an address's family.
func loopback(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// kept is what outlives the daemon: pages that are open go on when it starts again.
type kept struct {
	Token string `json:"token,omitempty"`
}

// State implements feature.Kept.
func (s *server) State() (json.RawMessage, error) {
	if !s.at.IsValid() {
		return nil, nil
	}
	return json.Marshal(kept{s.page.token()})
}

// Restore implements feature.Kept. What is no token of ours is not used.
func (s *server) Restore(b json.RawMessage) error {
	var k kept
	if b != nil {
		if err := json.Unmarshal(b, &k); err != nil {
			return err
		}
	}
	if len(k.Token) >= len(rand.Text()) {
		s.page.secret.Store(&k.Token)
	}
	return nil
}
