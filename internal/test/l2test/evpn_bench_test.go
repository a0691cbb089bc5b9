package l2test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// What EVPN promises in figures; docs/bench/README.md has them. Each host is a namespace with a
// daemon, and guests' frames say when a switch has learned something.

// report reports the median of times, the shortest and the longest, in milliseconds.
func report(b *testing.B, all []time.Duration) {
	b.Helper()
	slices.Sort(all)
	for name, d := range map[string]time.Duration{"ms-median": all[len(all)/2], "ms-least": all[0], "ms-most": all[len(all)-1]} {
		b.ReportMetric(float64(d.Microseconds())/1000, name)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEVPNMove: a station moves from the first of four hosts to the second. From its first frame
// there, how long until frames of all other hosts come there, that of its former host too. And how
// many of their frames come to hosts where it never was. Hosts are neighbors of each other, or of a
// route reflector, FRR's bgpd.
func BenchmarkEVPNMove(b *testing.B) {
	for _, reflected := range []bool{false, true} {
		name := "neighbors"
		if reflected {
			name = "reflector"
		}
		b.Run(name, func(b *testing.B) {
			o := newOverlay(b, 4, 1600, false)
			if reflected {
				o.reflected("--vni 10010")
			} else {
				o.evpn("--vni 10010", "90s")
			}
			o.speak()
			var all []time.Duration
			strays := 0
			for b.Loop() {
				took, stray := o.move(port.MAC(0x0200_0001_0000 + len(all)))
				all, strays = append(all, took), strays+stray
			}
			b.ReportMetric(float64(strays), "frames-flooded")
			report(b, all)
		})
	}
}

// speak makes all hosts known.
func (o *overlay) speak() {
	o.t.Helper()
	for i, h := range o.hosts {
		if err := h.Send(h.toAll().head(), port.Offload{}); err != nil {
			o.t.Fatal(err)
		}
		o.awaitStation(h.mac, i)
	}
}

// reflected joins the switches by FRR's bgpd.
func (o *overlay) reflected(settings string) {
	o.t.Helper()
	ns, address := o.peer()
	dir, err := os.MkdirTemp("", "bgpd") // which bgpd's own user can read
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "bgpd.conf")
	if err := os.WriteFile(config, []byte(`router bgp 65001
 bgp router-id 198.51.100.1
 no bgp default ipv4-unicast
 neighbor hosts peer-group
 neighbor hosts remote-as 65001
 bgp listen range 192.0.2.0/24 peer-group hosts
 address-family l2vpn evpn
  neighbor hosts activate
  neighbor hosts route-reflector-client
`), 0o644); err != nil {
		o.t.Fatal(err)
	}
	ns.Run("chown", "-R", "frr:frr", dir)
	const bgpd = "/usr/lib/frr/bgpd"
	if _, err := os.Stat(bgpd); err != nil {
		o.t.Skipf("this needs FRR: %v", err)
	}
	cmd := ns.Command(bgpd, "-Z", "-f", config, "-i", filepath.Join(dir, "pid"), "--vty_socket", dir, "-P", "0")
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for i, l := range o.sites {
		l.sw.ctl("add-port up0 --kind vxlan --local %s %s", o.vtep(i), settings)
		l.sw.ctl("set --evpn-as 65001")
		l.sw.ctl("evpn neighbor add %s --as 65001 --hold 90s", address)
	}
	for i := range o.sites {
		testenv.Eventually(o.t, fmt.Sprintf("switch %d has its session", i), func() bool { return o.neighbors(i)[0].State == "established" })
	}
}

// move makes a station known at the first host, has it speak at the second, and returns how long it
// took until frames from all other hosts came there, and how many came to hosts where it never was.
func (o *overlay) move(guest port.MAC) (took time.Duration, strays int) {
	o.t.Helper()
	said := append(frame{dst: port.Broadcast, src: guest}.head(), make([]byte, 46)...)
	if err := o.hosts[0].Send(said, port.Offload{}); err != nil {
		o.t.Fatal(err)
	}
	o.awaitStation(guest, 0)

	senders := []*host{o.hosts[0], o.hosts[2], o.hosts[3]}
	var mu sync.Mutex
	arrived := make(map[port.MAC]time.Time) // at the second host, by sender
	quit := make(chan struct{})
	var tasks sync.WaitGroup
	for i, h := range o.hosts[1:] {
		tasks.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				f, _, err := h.Recv(10 * time.Millisecond)
				if err != nil || port.MACFrom(f) != guest || binary.BigEndian.Uint16(f[12:]) != streamEtherType {
					continue
				}
				mu.Lock()
				if i > 0 {
					strays++
				} else if from := port.MACFrom(f[6:]); arrived[from].IsZero() {
					arrived[from] = time.Now()
				}
				mu.Unlock()
			}
		})
	}
	tasks.Go(func() {
		for {
			for _, h := range senders {
				_ = h.Send(append(frame{dst: guest, src: h.mac, etherType: streamEtherType}.head(), make([]byte, 46)...), port.Offload{})
			}
			select {
			case <-quit:
				return
			case <-time.After(200 * time.Microsecond):
			}
		}
	})
	time.Sleep(100 * time.Millisecond) // the streams run
	start := time.Now()
	if err := o.hosts[1].Send(said, port.Offload{}); err != nil {
		o.t.Fatal(err)
	}
	testenv.Eventually(o.t, "frames from all hosts come to the new place", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(arrived) == len(senders)
	})
	close(quit)
	tasks.Wait()
	for _, at := range arrived {
		took = max(took, at.Sub(start))
	}
	return took, strays
}

// BenchmarkEVPNDeath: a host loses its link. How long until the others have forgotten its stations: with
// BFD, and by the hold time alone.
func BenchmarkEVPNDeath(b *testing.B) {
	for name, hold := range map[string]string{"BFD": "90s --bfd", "hold=9s": "9s"} {
		b.Run(name, func(b *testing.B) {
			o := newOverlay(b, 3, 1600, false)
			o.evpn("--vni 10010", hold)
			last := o.hosts[2]
			var all []time.Duration
			for b.Loop() {
				o.speak()
				testenv.Eventually(b, "BFD is up where it is used", func() bool {
					return name != "BFD" || o.watched(0) && o.watched(1) && o.watched(2)
				})
				ip(b, o.underlay, "link set ul3 down\n")
				start := time.Now()
				for i := range 2 {
					testenv.Eventually(b, "its stations are forgotten", func() bool { return o.station(i, last.mac).MAC == 0 })
				}
				all = append(all, time.Since(start))
				ip(b, o.underlay, "link set ul3 up\n")
				for i := range o.sites {
					testenv.Eventually(b, "the session is back", func() bool {
						for _, n := range o.neighbors(i) {
							if n.State != "established" {
								return false
							}
						}
						return true
					})
				}
			}
			report(b, all)
		})
	}
}

// BenchmarkEVPNKnown: stations of two hosts talk, and ask for each other by ARP. How many of
// their frames come to a third host.
func BenchmarkEVPNKnown(b *testing.B) {
	o := newOverlay(b, 3, 1600, false)
	o.evpn("--vni 10010", "90s")
	h1, h2 := o.hosts[0], o.hosts[1]
	ping := func(from, to *host) {
		from.ns.Run("ip", "neigh", "flush", "dev", "eth0")
		from.ns.Run("ping", "-n", "-q", "-c", "1", "-w", "10", to.v4)
	}
	for i, h := range []*host{h1, h2} { // without IPv6, whose stations send to groups unasked
		h.v4 = fmt.Sprintf("10.0.0.%d", i+1)
		ip(b, h.ns, "addr add "+h.v4+"/24 dev eth0\n")
	}
	ping(h1, h2)
	testenv.Eventually(b, "addresses are known", func() bool {
		return len(o.station(0, h2.mac).IPs) == 1 && len(o.station(1, h1.mac).IPs) == 1
	})
	at3 := func() uint64 { return o.sites[2].sw.port("up0").RX.Frames }
	before, sent := at3(), 0
	for b.Loop() {
		for _, pair := range [][2]*host{{h1, h2}, {h2, h1}} {
			ping(pair[0], pair[1])
			for range 10_000 {
				if err := pair[0].Send(append(pair[0].to(pair[1]).head(), make([]byte, 46)...), port.Offload{}); err != nil {
					b.Fatal(err)
				}
				sent++
			}
		}
	}
	b.ReportMetric(float64(at3()-before), "frames-flooded")
	b.ReportMetric(float64(sent), "frames")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEVPNStations: a switch is told of 100,000 stations of other hosts. How long that takes, what
// memory it has then, and how many frames a second it forwards from one host to another, as a ratio to
// what it forwards without them.
func BenchmarkEVPNStations(b *testing.B) {
	const stations, hosts = 100_000, 100
	for _, plane := range []string{"kernel", "sockets"} {
		b.Run(plane, func(b *testing.B) {
			o := newOverlay(b, 2, 1600, false, "--fdb-size", "200000")
			o.evpn("--vni 10010 --data-plane "+plane, "90s")
			o.speak()
			ns, address := o.peer()
			sw := o.sites[0].sw
			sw.ctl("evpn neighbor add %s --as 65001 --hold 90s", address)
			p := o.connectPeer(ns, 0)
			var by [hosts][]peerRoute
			for n := range stations {
				h := n % hosts
				by[h] = append(by[h], peerRoute{rd: uint16(h), mac: port.MAC(0x0600_0000_0000 + n), vtep: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + h)}), vni: 10010})
			}
			var ratios []float64
			var told time.Duration
			for b.Loop() {
				without := o.rate()
				start := time.Now()
				for _, routes := range by {
					p.announce(routes...)
				}
				testenv.Eventually(b, "all stations are known", func() bool { return o.known(0) >= stations })
				told += time.Since(start)
				ratios = append(ratios, o.rate()/without)
				b.ReportMetric(rss(b, sw.PID()), "MiB")
				for _, routes := range by {
					p.withdraw(routes...)
				}
				testenv.Eventually(b, "no station is known", func() bool { return o.known(0) < stations/100 })
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "x-forwarding")
			b.ReportMetric(ratios[0], "x-least")
			b.ReportMetric(ratios[len(ratios)-1], "x-most")
			b.ReportMetric(told.Seconds()/float64(b.N), "s-to-learn")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// known returns how many stations the FDB of a site has.
func (o *overlay) known(site int) int {
	o.t.Helper()
	s, err := o.sites[site].sw.Client.Switch(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	return s.FDB.Size
}

// rate returns how many frames a second arrive that the first host sends to the second.
func (o *overlay) rate() float64 {
	o.t.Helper()
	from, to := o.hosts[0], o.hosts[1]
	count := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(to.ns.Run("cat", "/sys/class/net/eth0/statistics/rx_packets")))
		if err != nil {
			o.t.Fatal(err)
		}
		return n
	}
	wire := append(from.to(to).head(), make([]byte, 46)...)
	before, start := count(), time.Now()
	for time.Since(start) < 500*time.Millisecond {
		for range 64 {
			if err := from.Send(wire, port.Offload{}); err != nil {
				o.t.Fatal(err)
			}
		}
	}
	return float64(count()-before) / time.Since(start).Seconds()
}

// rss returns the resident memory of a process in MiB.
func rss(b *testing.B, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			return float64(n) / 1024
		}
	}
	b.Fatal("a process without memory")
	return 0
}
