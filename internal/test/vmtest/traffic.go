package vmtest

import "testing"

// Reach makes each guest ping every other; no answer may be lost.
func Reach(t testing.TB, guests ...*Guest) {
	t.Helper()
	const n = 5
	for _, from := range guests {
		for _, to := range guests {
			if from == to {
				continue
			}
			if got := from.Ping(t, to.IP.Addr(), n); got != n {
				t.Errorf("%s to %s: %d of %d pings answered", from.Name, to.Name, got, n)
			}
		}
	}
}

// Serve creates a file of random bytes, /tmp/www/data, and offers it on the guest's web
// server.
func (g *Guest) Serve(t testing.TB) {
	t.Helper()
	g.Run(t, "mkdir -p /tmp/www && dd if=/dev/urandom of=/tmp/www/data bs=1M count=4 && httpd -h /tmp/www")
}

// Fetch gets another guest's file over TCP and compares the bytes.
func (g *Guest) Fetch(t testing.TB, from *Guest) {
	t.Helper()
	want := from.Run(t, "sha256sum </tmp/www/data")
	if got := g.Run(t, "wget -q -O - http://%s/data | sha256sum", from.IP.Addr()); got != want {
		t.Errorf("%s from %s: the bytes that came are others", g.Name, from.Name)
	}
}
