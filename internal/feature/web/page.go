package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
)

//go:embed page
var assets embed.FS

// file is a part of the page, the same for everybody.
type file struct{ name, kind string }

var files = map[string]file{
	"/":          {"page/index.html", "text/html; charset=utf-8"},
	"/app.js":    {"page/app.js", "text/javascript; charset=utf-8"},
	"/style.css": {"page/style.css", "text/css; charset=utf-8"},
	"/icon.svg":  {"page/icon.svg", "image/svg+xml"},
}

// events is the call whose answer goes on.
const events = "/v1/events"

// calls are the calls of the API that the page makes. All of them only read. What guests send,
// and secrets that features keep, are in none of them.
var calls = map[string]bool{
	"/v1/switch": true,
	"/v1/ports":  true,
	"/v1/fdb":    true,
	"/v1/vlans":  true,
	"/v1/stp":    true,
	"/v1/lldp":   true,
	"/v1/drops":  true,
	events:       true,
}

const (
	// atOnce is how many calls are under way at a time, beside those that follow events.
	atOnce = 8

	// patience is how long a browser may take for an answer.
	patience = 30 * time.Second
)

// page serves the page and its calls.
//
// Any program on the host can connect to a loopback address, and any web site that a user visits
// can have the browser do so. So the token is in the fragment of the page's address, which no
// browser sends; the page sends it in a header of each call. There is no cookie, which the browser
// would send for other sites, and to other ports of the host. Requests for another Host than an
// address of the host come from a site that had its name resolve to it (DNS rebinding).
type page struct {
	api    http.Handler
	secret atomic.Pointer[string]
	busy   chan struct{}
}

func newPage(api http.Handler) *page {
	p := &page{api: api, busy: make(chan struct{}, atOnce)}
	p.renew()
	return p
}

// renew makes a new token.
func (p *page) renew() {
	token := rand.Text()
	p.secret.Store(&token)
}

func (p *page) token() string { return *p.secret.Load() }

// policy lets the page load its own files and nothing else, and makes no string into code.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP implements http.Handler.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for key, value := range map[string]string{
		"Content-Security-Policy":      policy,
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Embedder-Policy": "require-corp",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Cache-Control":                "no-store",
	} {
		h.Set(key, value)
	}
	if status, why := p.refuse(r); status != 0 {
		switch status {
		case http.StatusMethodNotAllowed:
			h.Set("Allow", "GET, HEAD")
		case http.StatusUnauthorized:
			h.Set("WWW-Authenticate", `Bearer realm="vswitch"`)
		}
		http.Error(w, why, status)
		return
	}
	c := http.NewResponseController(w)
	if r.URL.Path == events {
		_ = c.SetReadDeadline(time.Time{}) // the server's limit is for requests; this answer goes on
	} else {
		_ = c.SetWriteDeadline(time.Now().Add(patience))
	}
	if f, ok := files[r.URL.Path]; ok {
		f.serve(w)
		return
	}
	p.call(w, r)
}

// refuse returns the status of a request that is refused, and why; 0: it is not.
func (p *page) refuse(r *http.Request) (status int, why string) {
	_, isFile := files[r.URL.Path]
	switch {
	case !ownHost(r.Host):
		return http.StatusMisdirectedRequest, "this page is reached by an IP address or as localhost, not by another name"
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return http.StatusMethodNotAllowed, "this page only reads"
	case foreign(r):
		return http.StatusForbidden, "another web site asks for this"
	case isFile:
		return 0, ""
	case !calls[r.URL.Path]:
		return http.StatusNotFound, "there is no such page"
	case !p.authorized(r):
		return http.StatusUnauthorized, "the token is missing or wrong; `vswitch web` prints the address with it"
	}
	return 0, ""
}

// ownHost reports whether the Host of a request is an IP address or localhost. Web sites can
// make a name of theirs resolve to any address, but not these.
func ownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	_, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil
}

// foreign reports whether a browser says that another site makes the request. A link to the page
// is no harm: it brings no token.
func foreign(r *http.Request) bool {
	if o := r.Header.Get("Origin"); o != "" && o != "http://"+r.Host {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	return r.URL.Path != "/" || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// authorized reports whether a request has the token.
func (p *page) authorized(r *http.Request) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	// The digests have one length, so the time says nothing about the token's.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(p.token()))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && ok
}

func (f file) serve(w http.ResponseWriter) {
	b, err := assets.ReadFile(f.name)
	if err != nil {
		panic(err) // cannot fail: it is embedded, which a test holds
	}
	w.Header().Set("Content-Type", f.kind)
	_, _ = w.Write(b) // the client may have left
}

// call answers a call of the API. Nothing of the request but its path passes, and of the
// events their query.
func (p *page) call(w http.ResponseWriter, r *http.Request) {
	target := r.URL.Path
	if target == events {
		target += "?" + r.URL.Query().Encode()
	} else {
		select {
		case p.busy <- struct{}{}:
			defer func() { <-p.busy }()
		default:
			feature.Refuse(w, api.Errorf(api.CodeBusy, "%d calls are under way already; try again", atOnce))
			return
		}
	}
	inner, err := http.NewRequestWithContext(r.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		feature.Refuse(w, api.Errorf(api.CodeInvalid, "the call is not understood: %w", err))
		return
	}
	p.api.ServeHTTP(w, inner)
}
