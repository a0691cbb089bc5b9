package web

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
)

// daemon is an API that remembers the requests that reach it.
type daemon struct{ asked []string }

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.asked = append(d.asked, r.Method+" "+r.URL.RequestURI())
	for key := range r.Header {
		d.asked = append(d.asked, key)
	}
	_, _ = io.WriteString(w, `{"answer":true}`)
}

// pageServer serves a page at a real address of the host.
func pageServer(t *testing.T, d http.Handler) (p *page, host string) {
	t.Helper()
	p = newPage(d)
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return p, strings.TrimPrefix(s.URL, "http://")
}

// request sends one as written, and returns the answer.
func request(t *testing.T, host, method, target string, header map[string]string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lines := method + " " + target + " HTTP/1.1\r\nConnection: close\r\n"
	if header["Host"] == "" {
		lines += "Host: " + host + "\r\n"
	}
	for key, value := range header {
		lines += key + ": " + value + "\r\n"
	}
	if _, err := io.WriteString(c, lines+"\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v: %q", method, target, err, b)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body)
}

// What other web sites, other users of the host and careless ones can send is refused, and
// does not reach the daemon.
func TestRefused(t *testing.T) {
	d := &daemon{}
	p, host := pageServer(t, d)
	_, port, _ := net.SplitHostPort(host)
	right := "Bearer " + p.token()
	for _, c := range []struct {
		what, method, target string
		header               map[string]string
		want                 int
	}{
		{"no token", "GET", "/v1/ports", nil, http.StatusUnauthorized},
		{"another token", "GET", "/v1/ports", map[string]string{"Authorization": "Bearer " + strings.Repeat("A", len(p.token()))}, http.StatusUnauthorized},
		{"an empty token", "GET", "/v1/ports", map[string]string{"Authorization": "Bearer "}, http.StatusUnauthorized},
		{"another scheme", "GET", "/v1/ports", map[string]string{"Authorization": p.token()}, http.StatusUnauthorized},
		{"the token in the query", "GET", "/v1/ports?token=" + p.token(), nil, http.StatusUnauthorized},
		{"the token in a cookie", "GET", "/v1/ports", map[string]string{"Cookie": "token=" + p.token()}, http.StatusUnauthorized},
		{"a name that resolves to the host", "GET", "/v1/ports", map[string]string{"Host": "evil.example:" + port, "Authorization": right}, http.StatusMisdirectedRequest},
		{"such a name, for the page", "GET", "/", map[string]string{"Host": "evil.example:" + port}, http.StatusMisdirectedRequest},
		{"a name that begins like an address", "GET", "/", map[string]string{"Host": "127.0.0.1.evil.example"}, http.StatusMisdirectedRequest},
		{"a name that begins like localhost", "GET", "/", map[string]string{"Host": "localhost.evil.example"}, http.StatusMisdirectedRequest},
		{"another origin", "GET", "/v1/ports", map[string]string{"Origin": "http://evil.example", "Authorization": right}, http.StatusForbidden},
		{"another port of the host", "GET", "/v1/ports", map[string]string{"Origin": "http://127.0.0.1:1", "Authorization": right}, http.StatusForbidden},
		{"an opaque origin", "GET", "/v1/ports", map[string]string{"Origin": "null", "Authorization": right}, http.StatusForbidden},
		{"another site", "GET", "/v1/ports", map[string]string{"Sec-Fetch-Site": "cross-site", "Authorization": right}, http.StatusForbidden},
		{"another port, as sites are told apart", "GET", "/v1/ports", map[string]string{"Sec-Fetch-Site": "same-site", "Authorization": right}, http.StatusForbidden},
		{"a script for another site", "GET", "/app.js", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, http.StatusForbidden},
		{"a frame of another site", "GET", "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, http.StatusForbidden},
		{"a preflight", "OPTIONS", "/v1/ports", map[string]string{"Origin": "http://evil.example", "Access-Control-Request-Headers": "authorization"}, http.StatusMethodNotAllowed},
		{"a change", "POST", "/v1/ports", map[string]string{"Authorization": right}, http.StatusMethodNotAllowed},
		{"a removal", "DELETE", "/v1/ports/vm0", map[string]string{"Authorization": right}, http.StatusMethodNotAllowed},
		{"a call that is not the page's", "GET", "/v1/config", map[string]string{"Authorization": right}, http.StatusNotFound},
		{"what guests send", "GET", "/v1/capture", map[string]string{"Authorization": right}, http.StatusNotFound},
		{"the token itself", "GET", "/v1/web", map[string]string{"Authorization": right}, http.StatusNotFound},
		{"a call by a way round", "GET", "/v1/ports/../config", map[string]string{"Authorization": right}, http.StatusNotFound},
		{"a call below", "GET", "/v1/ports/vm0", map[string]string{"Authorization": right}, http.StatusNotFound},
		{"a file by a way round", "GET", "/page/index.html", nil, http.StatusNotFound},
	} {
		r, body := request(t, host, c.method, c.target, c.header)
		if r.StatusCode != c.want || len(body) > 200 {
			t.Errorf("%s: status %d, want %d: %.200s", c.what, r.StatusCode, c.want, body)
		}
		checkHeader(t, c.what, r.Header)
		if strings.Contains(body, p.token()) {
			t.Errorf("%s: the answer has the token", c.what)
		}
	}
	if len(d.asked) > 0 {
		t.Errorf("the daemon was asked: %q", d.asked)
	}
}

// checkHeader wants an answer that no cache keeps, no frame shows and no other site can read.
func checkHeader(t *testing.T, what string, h http.Header) {
	t.Helper()
	for key, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "X-Frame-Options": "DENY",
		"Content-Security-Policy": policy, "Access-Control-Allow-Origin": "", "Set-Cookie": "",
	} {
		if got := h.Get(key); got != want {
			t.Errorf("%s: %s is %q, want %q", what, key, got, want)
		}
	}
}

func TestServed(t *testing.T) {
	d := &daemon{}
	p, host := pageServer(t, d)
	_, port, _ := net.SplitHostPort(host)
	right := "Bearer " + p.token()
	for _, c := range []struct {
		what, target string
		header       map[string]string
		want         string
	}{
		{"the page", "/", nil, "<!doctype html>"},
		{"its script", "/app.js", map[string]string{"Sec-Fetch-Site": "same-origin"}, "const second"},
		{"its style", "/style.css", nil, ":root"},
		{"its icon", "/icon.svg", nil, "<svg"},
		{"by a link", "/", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, "<!doctype html>"},
		{"as localhost", "/", map[string]string{"Host": "localhost:" + port}, "<!doctype html>"},
		{"by IPv6", "/", map[string]string{"Host": "[::1]:" + port}, "<!doctype html>"},
		{"through a tunnel", "/", map[string]string{"Host": "localhost:9999"}, "<!doctype html>"},
		{"a call", "/v1/ports", map[string]string{"Authorization": right, "Sec-Fetch-Site": "same-origin", "Origin": "http://" + host}, `{"answer":true}`},
	} {
		r, body := request(t, host, "GET", c.target, c.header)
		if r.StatusCode != http.StatusOK || !strings.HasPrefix(body, c.want) && !strings.Contains(body, c.want) {
			t.Errorf("%s: status %d: %.100s", c.what, r.StatusCode, body)
		}
		checkHeader(t, c.what, r.Header)
	}
	// Nothing else of a request reaches the daemon.
	d.asked = nil
	request(t, host, "GET", "/v1/fdb?x=1", map[string]string{"Authorization": right, "Cookie": "a=b", "Accept": "text/event-stream"})
	request(t, host, "HEAD", "/v1/events?since=5m&follow=true", map[string]string{"Authorization": right, "Last-Event-ID": "1"})
	if want := "GET /v1/fdb, GET /v1/events?follow=true&since=5m"; strings.Join(d.asked, ", ") != want {
		t.Errorf("the daemon was asked %q, want %s", d.asked, want)
	}
}

// Answers of a daemon at a control socket pass on as they come, with their errors.
func TestProxy(t *testing.T) {
	socket := t.TempDir() + "/s"
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	more := make(chan struct{})
	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/stp":
				feature.Refuse(w, api.Errorf(api.CodeInvalid, "spanning tree is off"))
			case events:
				_ = http.NewResponseController(w).Flush()
				for _, line := range []string{"one\n", "two\n"} {
					<-more
					_, _ = io.WriteString(w, line)
					_ = http.NewResponseController(w).Flush()
				}
				<-more
				panic(http.ErrAbortHandler) // the daemon is gone
			default:
				_, _ = io.WriteString(w, `[]`)
			}
		}))
	}()
	defer ln.Close()
	p, host := pageServer(t, proxy{api.NewClient(socket)})
	header := map[string]string{"Authorization": "Bearer " + p.token()}
	if r, body := request(t, host, "GET", "/v1/ports", header); r.StatusCode != 200 || body != "[]" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("ports: %s %q %v", r.Status, body, r.Header)
	}
	r, body := request(t, host, "GET", "/v1/stp", header)
	var e api.Error
	if err := json.Unmarshal([]byte(body), &e); err != nil || r.StatusCode != 400 || e.Message != "spanning tree is off" {
		t.Errorf("stp: %s %q", r.Status, body)
	}
	checkHeader(t, "an error", r.Header)

	q, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+events+"?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", header["Authorization"])
	client := http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	stream, err := client.Do(q) // returns before the first event
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	for _, want := range []string{"one\n", "two\n"} {
		more <- struct{}{}
		b := make([]byte, 4)
		if _, err := io.ReadFull(stream.Body, b); err != nil || string(b) != want {
			t.Errorf("the stream has %q, %v, want %q", b, err, want)
		}
	}
	close(more)
	if b, err := io.ReadAll(stream.Body); err == nil {
		t.Errorf("a stream that breaks off ends like a whole one, after %q", b)
	}
	ln.Close()
	if r, body := request(t, host, "GET", "/v1/fdb", header); r.StatusCode != 500 || !strings.Contains(body, "no vswitch daemon") {
		t.Errorf("without a daemon: %s %q", r.Status, body)
	}
}

// The page loads its own files only, and makes no string that it was told into HTML or code.
func TestAssets(t *testing.T) {
	served := make(map[string]bool)
	for _, f := range files {
		served[f.name] = true
	}
	err := fs.WalkDir(assets, "page", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !served[name] {
			t.Errorf("%s is embedded, and not served", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, f := range files {
		b, err := assets.ReadFile(f.name)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", "")
		for _, bad := range []string{"http:", "https:", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "localStorage", "document.cookie", "@import", "url("} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q", f.name, bad)
			}
		}
		if path == "/" {
			for _, m := range regexp.MustCompile(`(?:src|href)="([^"#][^"]*)"`).FindAllStringSubmatch(text, -1) {
				if _, ok := files["/"+m[1]]; !ok {
					t.Errorf("the page loads %q, which is not served", m[1])
				}
			}
			if regexp.MustCompile(`(?i)<style| style=| on[a-z]+=|<script[^>]*>[^<]`).MatchString(text) {
				t.Error("the page has style or script in itself, which its policy forbids")
			}
		}
	}
	for path := range calls {
		b, _ := assets.ReadFile("page/app.js")
		if !strings.Contains(string(b), "'"+path) {
			t.Errorf("the page may call %s, and does not", path)
		}
	}
}

// Text stands out from what is behind it by 4.5 to 1, lines of drawings by 3 to 1 (WCAG 2.2,
// 1.4.3 and 1.4.11), in light and dark.
func TestContrast(t *testing.T) {
	b, err := assets.ReadFile("page/style.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(b), -1)
	if len(schemes) != 2 {
		t.Fatalf("there are %d schemes of colours", len(schemes))
	}
	for i, s := range schemes {
		color := make(map[string]float64)
		for _, m := range regexp.MustCompile(`--([a-z]+): #([0-9a-f]{6});`).FindAllStringSubmatch(s[1], -1) {
			color[m[1]] = luminance(t, m[2])
		}
		for _, behind := range []string{"bg", "panel", "mark"} {
			for ink, least := range map[string]float64{"ink": 7, "muted": 4.5, "accent": 4.5, "ok": 4.5, "warn": 4.5, "bad": 4.5, "strong": 3} {
				if behind == "mark" && ink == "strong" {
					continue // not drawn on it
				}
				a, c := color[ink], color[behind]
				if a == 0 || c == 0 {
					t.Fatalf("scheme %d lacks %s or %s", i, ink, behind)
				}
				if ratio := (max(a, c) + 0.05) / (min(a, c) + 0.05); ratio < least {
					t.Errorf("scheme %d: %s on %s has a contrast of %.2f, want %v", i, ink, behind, ratio, least)
				}
			}
		}
	}
}

// luminance returns the relative luminance of a colour, as WCAG defines it.
func luminance(t *testing.T, hex string) (sum float64) {
	t.Helper()
	v, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	for i, weight := range []float64{0.0722, 0.7152, 0.2126} {
		c := float64(v>>(8*i)&0xff) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

func TestBusy(t *testing.T) {
	inside, done := make(chan struct{}), make(chan struct{})
	p, host := pageServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		inside <- struct{}{}
		<-done
		fmt.Fprint(w, "ok")
	}))
	header := map[string]string{"Authorization": "Bearer " + p.token()}
	ended := make(chan int, atOnce)
	for range atOnce {
		go func() {
			r, err := http.NewRequest("GET", "http://"+host+"/v1/ports", nil)
			if err != nil {
				panic(err)
			}
			r.Header.Set("Authorization", header["Authorization"])
			a, err := http.DefaultClient.Do(r)
			if err != nil {
				ended <- 0
				return
			}
			a.Body.Close()
			ended <- a.StatusCode
		}()
		<-inside
	}
	if r, body := request(t, host, "GET", "/v1/ports", header); r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "under way") {
		t.Errorf("one call too many: %s %s", r.Status, body)
	}
	close(done)
	for range atOnce {
		if s := <-ended; s != http.StatusOK {
			t.Errorf("a call ends with status %d", s)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
