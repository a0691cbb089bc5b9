package l2test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// TestWebOfTheDaemon reads the page that the daemon serves, in its namespace, and what an
// address that another program has does to a switch.
func TestWebOfTheDaemon(t *testing.T) {
	t.Parallel()
	const address, taken = "127.0.0.1:8471", "127.0.0.1:8472"
	l := newLAN(t, 1)
	l.ns.Run("ip", "link", "set", "lo", "up")
	var ln net.Listener
	var err error
	l.ns.Do(func() { ln, err = net.Listen("tcp", taken) })
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, address string) (c net.Conn, err error) {
			l.ns.Do(func() { c, err = net.Dial("tcp", address) })
			return c, err
		},
	}}
	get := func(url, token string, answer any) (status int) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		a, err := client.Do(r)
		if err != nil {
			return 0
		}
		defer a.Body.Close()
		if answer != nil && a.StatusCode == http.StatusOK {
			if err := json.NewDecoder(a.Body).Decode(answer); err != nil {
				t.Error(err)
			}
		}
		return a.StatusCode
	}

	l.sw.ctl("set --web %s", address)
	url, token, ok := strings.Cut(l.sw.ctl("web"), "#token=")
	if !ok || url != "http://"+address+"/" {
		t.Fatalf("vswitch web prints %s and %q", url, token)
	}
	check := func() {
		t.Helper()
		var ports []api.Port
		if status := get(url+"v1/ports", token, &ports); status != http.StatusOK || len(ports) != 1 || ports[0].Name != "p1" {
			t.Errorf("the page's ports: status %d, %v", status, ports)
		}
		if status := get(url+"v1/ports", token+"A", nil); status != http.StatusUnauthorized {
			t.Errorf("with a wrong token: status %d", status)
		}
		if status := get(url+"v1/config", token, nil); status != http.StatusNotFound {
			t.Errorf("a call that is not the page's: status %d", status)
		}
	}
	check()
	l.sw.refuse("another program has this address", "set --web %s", taken)
	l.sw.refuse("another program has this address", "set --metrics %s --web=", taken)
	check() // it stays where it was
	if out := l.sw.ctl("show"); !strings.Contains(out, "--web="+address) || strings.Contains(out, taken) {
		t.Errorf("vswitch show prints %s", out)
	}
	l.sw.Restart(t)
	check() // with the same token
	if out := l.sw.ctl("config export"); strings.Contains(out, token) {
		t.Error("a configuration has the token")
	}
	l.sw.ctl("set --web=")
	if status := get(url, token, nil); status != 0 {
		t.Errorf("after it was taken back: status %d", status)
	}

	// A taken address stops no switch.
	l.sw.Restart(t, "--web", taken)
	if !strings.Contains(l.sw.Log(), "pages for browsers are not served by TCP; the address is tried again") {
		t.Error("the log does not say that the address is taken")
	}
	ln.Close()
	testenv.Eventually(t, "the page is served once the address is free", func() bool {
		return get("http://"+taken+"/", "", nil) == http.StatusOK
	})
}
