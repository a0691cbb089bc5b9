package trace

import (
	"bytes"
	"encoding/hex"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/feature/featuretest"
	"github.com/vswitch/vswitch/internal/packet/brief"
	"github.com/vswitch/vswitch/internal/packet/pcapng"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

const macA, macB port.MAC = 0x5254_0000_0001, 0x5254_0000_0002

// Frames are what their words say, and as long as the least frame.
func TestBuild(t *testing.T) {
	for words, want := range map[string]string{
		"":                               "type 0x88b5",
		"arp":                            "ARP who has 192.0.2.2, tell 192.0.2.1",
		"arp 10.0.0.1 10.0.0.2":          "ARP who has 10.0.0.2, tell 10.0.0.1",
		"icmp 10.0.0.1 10.0.0.2":         "IPv4 10.0.0.1 > 10.0.0.2 icmp echo request",
		"icmp fd00::1 fd00::2":           "IPv6 fd00::1 > fd00::2 icmp6 echo request",
		"tcp 10.0.0.1:1 10.0.0.2:443":    "IPv4 10.0.0.1:1 > 10.0.0.2:443 tcp S",
		"tcp 10.0.0.1 10.0.0.2":          "IPv4 10.0.0.1:4000 > 10.0.0.2:80 tcp S",
		"udp [fd00::1]:5 [fd00::2]:53":   "IPv6 [fd00::1]:5 > [fd00::2]:53 udp",
		"ip":                             "",
		"tcp 10.0.0.1":                   "",
		"tcp 10.0.0.1 fd00::1":           "",
		"tcp 10.0.0.1 10.0.0.2 10.0.0.3": "",
		"arp fd00::1 fd00::2":            "",
		"arp vm0 vm1":                    "",
		"icmp fe80::1%eth0 fe80::2":      "",
		"udp 10.0.0.1:x 10.0.0.2":        "",
		"tcp 10.0.0.1:70000 10.0.0.2:80": "",
		"arp [10.0.0.1]:1 10.0.0.2":      "",
	} {
		for _, vlan := range []uint16{0, 20} {
			wire, err := build(macA, macB, vlan, strings.Fields(words))
			if want == "" {
				if err == nil || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q: %x, %v", words, wire, err)
				}
				continue
			}
			tag := ""
			if vlan != 0 {
				tag = " vlan 20"
			}
			got := string(brief.Append(nil, wire, len(wire)))
			if err != nil || len(wire) < minFrame || !strings.HasPrefix(got, "52:54:00:00:00:01 > 52:54:00:00:00:02"+tag+" "+want+" len ") {
				t.Errorf("%q is %s, %v", words, got, err)
			}
		}
	}
}

// rig is a switch with two ports that have stations behind them.
type rig struct {
	*tracer
	t     *testing.T
	ports []*featuretest.Port
}

func newRig(t *testing.T) *rig {
	host := featuretest.New(t)
	r := &rig{tracer: &tracer{host: host}, t: t}
	for i, name := range []string{"vm0", "vm1", "vm2"} {
		p := host.Add(t, port.Spec{Name: name, Kind: "tap"}, true)
		if err := p.Core().Attach(memory.New(memory.Options{})); err != nil {
			t.Fatal(err)
		}
		p.Core().SetForwarding(true)
		if i < 2 {
			if err := host.Switch().FDB().Add(fdb.MakeKey(1, uint64(macA)+uint64(i)), p.Number(), fdb.Sticky); err != nil {
				t.Fatal(err)
			}
		}
		r.ports = append(r.ports, p)
	}
	return r
}

// ask traces a frame that comes by vm0.
func (r *rig) ask(wire []byte) *Answer {
	r.t.Helper()
	body := `{"port": "vm0", "frame": "` + hex.EncodeToString(wire) + `"}`
	a, err := r.handle(httptest.NewRequest("POST", "/v1/trace", strings.NewReader(body)))
	if err != nil {
		r.t.Fatal(err)
	}
	return a.(*Answer)
}

// last returns the step before the verdict.
func last(a *Answer) Step { return a.Steps[len(a.Steps)-1] }

// Each setting that can keep a frame back is named where it does.
func TestSettingsAreNamed(t *testing.T) {
	frame := func(dst, src port.MAC, vlan uint16) []byte {
		wire, err := build(src, dst, vlan, nil)
		if err != nil {
			t.Fatal(err)
		}
		return wire
	}
	for name, c := range map[string]struct {
		set    func(r *rig)
		wire   []byte
		stage  string
		result string
		remedy string
	}{
		"isolated": {
			set: func(r *rig) {
				for _, p := range r.ports[:2] {
					_ = p.Core().Configure(vswitch.PortConfig{Isolated: true})
					p.Spec().Isolated = true
				}
			},
			stage: "out", result: "DROPPED isolated: vm0 and vm1 are both isolated", remedy: "`vswitch set-port vm1 --isolated=off` would let it pass",
		},
		"down": {
			set:   func(r *rig) { r.ports[0].Core().SetForwarding(false) },
			stage: "in", result: "DROPPED port_down: vm0 does not pass frames now", remedy: "`vswitch ports vm0` says why",
		},
		"destination down": {
			set: func(r *rig) {
				r.ports[1].Core().SetForwarding(false)
				r.host.Switch().FDB().Add(fdb.MakeKey(1, uint64(macB)), 1, fdb.Static)
			},
			stage: "out", result: "DROPPED no_destination: vm1 does not pass frames now", remedy: "`vswitch ports vm1` says why",
		},
		"locked": {
			set:   func(r *rig) { _ = r.ports[0].Core().Configure(vswitch.PortConfig{Locked: true}) },
			wire:  frame(macB, 0x5254_0000_0009, 0),
			stage: "learn", result: "DROPPED locked: --locked, and the FDB does not have the sender at vm0", remedy: "`vswitch fdb add 52:54:00:00:00:09 vm0 --vlan 1` would let it pass",
		},
		"limit": {
			set: func(r *rig) {
				_ = r.ports[0].Core().Configure(vswitch.PortConfig{LearnLimit: 1, LearnAction: vswitch.LearnProtect})
				r.ports[0].Spec().LearnLimit, r.ports[0].Spec().LearnAction = 1, "protect"
			},
			wire:  frame(macB, 0x5254_0000_0009, 0),
			stage: "learn", result: "DROPPED learn_limit: --learn-limit 1 is reached, --learn-action protect", remedy: "`vswitch set-port vm0 --learn-limit 2` would let it pass",
		},
		"tagged": {
			set: func(r *rig) {
				_ = r.ports[0].Core().Configure(vswitch.PortConfig{VLAN: port.VLAN{Access: 10}})
				r.ports[0].Spec().Access = 10
			},
			wire: frame(macB, macA, 20), stage: "vlan", result: "DROPPED vlan_tagged: tagged, on a port that takes untagged frames only: access 10",
		},
		"blocked": {
			set:   func(r *rig) { r.ports[0].Core().SetTree(vswitch.TreeDiscarding, true) },
			stage: "learn", result: "DROPPED stp_blocked: spanning tree keeps the port from forwarding",
		},
		"blocked at the output": {
			set:   func(r *rig) { r.ports[1].Core().SetTree(vswitch.TreeDiscarding, true) },
			stage: "out", result: "DROPPED stp_blocked: spanning tree keeps the port from forwarding",
		},
		"bad source": {
			wire: frame(macB, 0, 0), stage: "check", result: "DROPPED bad_source: its source address is zero or a group address",
		},
		"reserved": {
			wire: frame(0x0180_c200_000e, macA, 0), stage: "check",
			result: "DROPPED reserved_address: to an address that bridges do not forward (01:80:c2:00:00:0x)", remedy: "`vswitch set --group-forward` can let it pass",
		},
		"same port": {
			wire: frame(macA, macA, 0), stage: "out", result: "DROPPED same_port: its destination is behind the port that it comes by",
		},
		"runt": {wire: make([]byte, 5), stage: "in", result: "DROPPED runt: shorter than an Ethernet header"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if c.set != nil {
				c.set(r)
			}
			wire := c.wire
			if wire == nil {
				wire = frame(macB, macA, 0)
			}
			a := r.ask(wire)
			if s := last(a); a.Delivered || s.Stage != c.stage || s.Result != c.result || a.Remedy != c.remedy || !strings.HasPrefix(a.Verdict, "not delivered") {
				t.Errorf("%+v", a)
			}
		})
	}
}

// A frame can come from a file, by its number; names may have colons, too.
func TestFromFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "10:22.pcapng")
	file := pcapng.AppendInterface(pcapng.AppendSection(nil, ""), &pcapng.Interface{Name: "vm0"})
	frames := [][]byte{{1, 2, 3}, {4, 5}}
	for _, f := range frames {
		file = pcapng.AppendPacket(file, &pcapng.Packet{Data: f, Len: len(f)})
	}
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string][]byte{"": frames[0], ":1": frames[0], ":2": frames[1]} {
		if got, err := fromFile(name + at); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %x, %v; want %x", at, got, err, want)
		}
	}
	for at, want := range map[string]string{":3": "has 2 packets, not 3", ":0": "no such file", ".gz": "no such file"} {
		if got, err := fromFile(name + at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %x, %v; want %q", at, got, err, want)
		}
	}
}

// A frame that is delivered has a step for each stage, and an outcome for each port.
func TestDelivered(t *testing.T) {
	r := newRig(t)
	wire, _ := build(macA, macB, 0, nil)
	a := r.ask(wire)
	var stages []string
	for _, s := range a.Steps {
		stages = append(stages, s.Stage)
	}
	if !a.Delivered || a.Verdict != "delivered" || a.VLAN != 1 || !slices.Equal(stages, []string{"in", "vlan", "learn", "look up", "out"}) ||
		!slices.Equal(a.Outputs, []Output{{Port: "vm1", Delivered: true}}) {
		t.Errorf("%+v", a)
	}
	if err := r.ports[2].Core().Configure(vswitch.PortConfig{NoFlood: vswitch.Broadcast}); err != nil {
		t.Fatal(err)
	}
	wire, _ = build(macA, port.Broadcast, 0, nil)
	if a := r.ask(wire); !a.Delivered || !slices.Equal(a.Outputs, []Output{{Port: "vm1", Delivered: true}, {Port: "vm2", Reason: "not_flooded"}}) {
		t.Errorf("%+v", a)
	}
	for _, body := range []string{`{}`, `{"port": "vm9", "frame": "00"}`, `{"port": "vm0", "frame": "0"}`, `{"port": "vm0", "frame": ""}`, `{"port": "vm0", "frame": "00", "x": 1}`} {
		if a, err := r.handle(httptest.NewRequest("POST", "/v1/trace", strings.NewReader(body))); err == nil {
			t.Errorf("%s: %+v", body, a)
		}
	}
}
