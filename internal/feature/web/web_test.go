package web

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/httpd"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// free returns an address of this host that nobody has.
func free(t *testing.T) httpd.Address {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	return httpd.Address{AddrPort: netip.MustParseAddrPort(ln.Addr().String())}
}

// The token outlives the daemon while the page is served, and no longer.
func TestToken(t *testing.T) {
	h := featuretest.New(t)
	s := start(h, httpd.Address{})
	defer s.Stop()
	if b, err := s.State(); b != nil || err != nil || s.served().URL != "" {
		t.Errorf("a page that is not served keeps %s, %v, and is at %q", b, err, s.served().URL)
	}
	at := free(t)
	if err := s.Set(Settings{Address: at}); err != nil {
		t.Fatal(err)
	}
	first := s.served()
	if want := "http://" + at.String() + "/"; first.URL != want || len(first.Token) < 20 {
		t.Errorf("it is served at %+v, want %s", first, want)
	}
	if r, _ := request(t, at.String(), "GET", "/", nil); r.StatusCode != http.StatusOK {
		t.Errorf("the page: %s", r.Status)
	}
	b, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(h.Logged(), first.Token) {
		t.Error("the log has the token")
	}
	next := start(h, httpd.Address{})
	defer next.Stop()
	if err := next.Restore(b); err != nil || next.page.token() != first.Token {
		t.Errorf("the next daemon has another token: %v", err)
	}
	for _, bad := range []string{`{"token":""}`, `{"token":"a"}`, `{}`} {
		if err := next.Restore([]byte(bad)); err != nil || next.page.token() != first.Token {
			t.Errorf("%s is taken for a token: %v", bad, err)
		}
	}
	for range 2 {
		if err := s.Set(Settings{}); err != nil {
			t.Fatal(err)
		}
		if err := s.Set(Settings{Address: at}); err != nil || s.served().Token != first.Token {
			t.Errorf("a change that is taken back makes another token: %v", err)
		}
	}
	if err := s.Set(Settings{}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the token ends with the page", func() bool { return s.page.token() != first.Token })
	if r, err := net.Dial("tcp", at.String()); err == nil {
		r.Close()
		t.Error("the page is still served")
	}
}

func TestAddress(t *testing.T) {
	h := featuretest.New(t)
	s := start(h, httpd.Address{})
	defer s.Stop()
	port := free(t).Port()
	for at, want := range map[string]string{"0.0.0.0": "127.0.0.1", "::": "[::1]"} {
		s.at = httpd.Address{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(at), port)}
		if got := s.served().URL; !strings.HasPrefix(got, "http://"+want+":") {
			t.Errorf("served at all addresses of %s, it is at %s", at, got)
		}
	}
	s.at = httpd.Address{}
}
