package unixsock_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/vmtest"
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
		p := open(t, c.kind, port.Spec{Name: c.name, Settings: unixsock.Settings{Socket: port.Socket{Path: at(c.name), Client: c.client}}})
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
	vmtest.Reach(t, guests...)
	for i, p := range ports {
		if !p.(port.Linked).Link() {
			t.Errorf("%s talks, and its link is down: %v", guests[i].Name, linkError(p))
		}
	}

	// TCP brings bursts, which a peer that is slow has to be waited for.
	for _, g := range guests {
		g.Serve(t)
	}
	for _, from := range guests {
		for _, to := range guests {
			if from != to {
				to.Fetch(t, from)
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
		vmtest.Reach(t, guests...)
		awaitLink(t, ports[i], true)
	}
}
