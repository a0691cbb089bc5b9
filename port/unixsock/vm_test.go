package unixsock_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/internal/vmtest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/unixsock"
	vswitch "github.com/vswitch/vswitch/switch"
)

// TestGuests has real guests talk, each with another of QEMU's socket netdevs.
//
//	guest a ── stream, connects ──┐
//	guest b ── dgram ─────────────┼─ switch
//	guest c ── stream, listens ───┘
func TestGuests(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	ns := testenv.NewNetns(t)
	dir := tempDir(t)
	sw := vswitch.New(vswitch.Config{})
	t.Cleanup(func() { sw.Close() })

	at := func(name string) string { return filepath.Join(dir, name) }
	var guests []*vmtest.Guest
	var ports []port.Port
	for i, c := range []struct {
		name   string
		kind   port.Kind
		client bool
		netdev string
	}{
		{"a", unixsock.Stream{}, false, "stream,id=n0,server=off,addr.type=unix,addr.path=" + at("a")},
		{"b", unixsock.Dgram{}, false, "dgram,id=n0,local.type=unix,local.path=" + at("b.vm") + ",remote.type=unix,remote.path=" + at("b")},
		{"c", unixsock.Stream{}, true, "stream,id=n0,server=on,addr.type=unix,addr.path=" + at("c")},
	} {
		p := open(t, c.kind, port.Spec{Name: c.name, Path: at(c.name), Client: c.client})
		sp, err := sw.AddPort(c.name)
		if err == nil {
			err = sp.Attach(p)
		}
		if err != nil {
			t.Fatal(err)
		}
		sp.SetForwarding(true)
		ports = append(ports, p)
		mac := fmt.Sprintf("52:54:00:00:00:%02x", i+1)
		guests = append(guests, vmtest.Start(t, vmtest.Options{
			Name: c.name, Netns: ns, MAC: mac,
			IP:  netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", i+1)),
			Net: []string{"-netdev", c.netdev, "-device", "virtio-net-pci,netdev=n0,mac=" + mac},
		}))
	}
	vmtest.Wait(t, guests...)
	a, b := guests[0], guests[1]
	reach := func(from, to *vmtest.Guest) {
		t.Helper()
		const n = 10
		if got := from.Ping(t, to.IP.Addr(), n); got != n {
			t.Errorf("%s to %s: %d of %d pings answered", from.Name, to.Name, got, n)
		}
	}
	all := func() {
		t.Helper()
		for _, from := range guests {
			for _, to := range guests {
				if from != to {
					reach(from, to)
				}
			}
		}
	}
	all()
	for i, p := range ports {
		if !p.(port.Linked).Link() {
			t.Errorf("%s talks, and its link is down: %v", guests[i].Name, linkError(p))
		}
	}

	// TCP brings bursts, which a peer that is slow has to be waited for.
	sums := map[*vmtest.Guest]string{}
	for _, g := range guests {
		g.Run(t, "mkdir -p /tmp/www && dd if=/dev/urandom of=/tmp/www/data bs=1M count=4 && httpd -h /tmp/www")
		sums[g] = sum(t, g, "/tmp/www/data")
	}
	for _, from := range guests {
		for _, to := range guests {
			if from == to {
				continue
			}
			to.Run(t, "wget -q -O /tmp/in http://%s/data", from.IP.Addr())
			if sum(t, to, "/tmp/in") != sums[from] {
				t.Errorf("%s from %s: the bytes that came are others", to.Name, from.Name)
			}
		}
	}

	for i, g := range guests {
		g.Kill()
		if g == b {
			// That a datagram's receiver is gone shows when it is sent to.
			a.Ping(t, b.IP.Addr(), 1)
		}
		awaitLink(t, ports[i], false)
		g.Restart(t)
		vmtest.Wait(t, g)
		all()
		awaitLink(t, ports[i], true)
	}
}

func sum(t *testing.T, g *vmtest.Guest, file string) string {
	t.Helper()
	return strings.Fields(g.Run(t, "sha256sum %s", file))[0]
}
