package guard

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	proto "github.com/vswitch/vswitch/internal/proto/guard"
	"github.com/vswitch/vswitch/port"
)

// What users write, and what the guard makes of it; or what it says is wrong with it.
func TestSettings(t *testing.T) {
	one := func(a proto.Address) string { return fmt.Sprintf("%v@%d", a.Prefix, a.VLAN) }
	for _, c := range []struct {
		s           Settings
		want, wrong string
	}{
		{Settings{Addresses: []string{"192.0.2.10"}}, "192.0.2.10/32@0", ""},
		{Settings{Addresses: []string{"192.0.2.10@20"}}, "192.0.2.10/32@20", ""},
		{Settings{Addresses: []string{"192.0.2.10@1", "192.0.2.11@4094"}}, "192.0.2.10/32@1 192.0.2.11/32@4094", ""},
		{Settings{Addresses: []string{"192.0.2.0/28"}}, "192.0.2.0/28@0", ""},
		{Settings{Addresses: []string{"192.0.2.1/28"}}, "192.0.2.1/32@0", ""}, // the address of an interface
		{Settings{Addresses: []string{"128.0.0.0/1"}}, "128.0.0.0/1@0", ""},
		{Settings{Addresses: []string{"2001:db8::/64@7"}}, "2001:db8::/64@7", ""},
		{Settings{Addresses: []string{"2001:db8::1/64"}}, "2001:db8::1/128@0", ""},
		{Settings{Addresses: []string{"192.0.2.10@0"}}, "", "from 1 to 4094"},
		{Settings{Addresses: []string{"192.0.2.10@4095"}}, "", "from 1 to 4094"},
		{Settings{Addresses: []string{"192.0.2.10@"}}, "", "from 1 to 4094"},
		{Settings{Addresses: []string{"::/0"}}, "", "every address"},
		{Settings{Addresses: []string{"192.0.2.0/33"}}, "", "no address"},
		{Settings{Addresses: []string{"fe80::1%eth0"}}, "", "no address"},
		{Settings{Addresses: []string{"::ffff:192.0.2.1"}}, "", "of a station"},
		{Settings{Addresses: []string{"255.255.255.255"}}, "", "of a station"},
		{Settings{Addresses: []string{"127.0.0.1"}}, "", "of a station"},
		{Settings{Addresses: []string{"0.0.0.0/8"}}, "", "of a station"},

		{Settings{Pairs: []string{"52:54:00:00:00:01=192.0.2.10@3"}}, "52:54:00:00:00:01=192.0.2.10/32@3", ""},
		{Settings{Pairs: []string{"vrrp:1=192.0.2.1", "vrrp:255=2001:db8::1"}}, "vrrp 00:00:5e:00:01:01=192.0.2.1/32@0 vrrp 00:00:5e:00:02:ff=2001:db8::1/128@0", ""},
		{Settings{Pairs: []string{"vrrp:0=192.0.2.1"}}, "", "from 1 to 255"},
		{Settings{Pairs: []string{"vrrp:256=192.0.2.1"}}, "", "from 1 to 255"},
		{Settings{Pairs: []string{"01:00:5e:00:00:01=192.0.2.1"}}, "", "--guard-pair"},
		{Settings{Pairs: []string{"52:54:00:00:00:01=224.0.0.1"}}, "", "of a station"},

		{Settings{Types: []string{"0x600", "0xffff", "35020"}}, "0x600 0xffff 0x88cc", ""},
		{Settings{Types: []string{"0x5ff"}}, "", "EtherType"},
		{Settings{Types: []string{"0x10000"}}, "", "EtherType"},
		{Settings{Types: []string{"0x88a8"}}, "", "EtherType"},
		{Settings{Types: []string{"0x9100"}}, "", "EtherType"},

		{Settings{Prefixes: []string{"2001:db8:1::5/64", "8000::/1"}}, "in 2001:db8:1::/64 in 8000::/1", ""},
		{Settings{Prefixes: []string{"::/0"}}, "", "no IPv6 prefix"},
		{Settings{Prefixes: []string{"192.0.2.0/24"}}, "", "no IPv6 prefix"},
		{Settings{Prefixes: []string{"::ffff:0:0/96"}}, "", "no IPv6 prefix"},
	} {
		got, err := c.s.config(0, port.VLANSet{})
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%+v: %v, want %q", c.s, err, c.wrong)
			}
			continue
		}
		var all []string
		for _, a := range got.Addresses {
			all = append(all, one(a))
		}
		for _, p := range got.Pairs {
			text := p.MAC.String() + "=" + one(p.Address)
			if p.VRRP {
				text = "vrrp " + text
			}
			all = append(all, text)
		}
		for _, n := range got.EtherTypes {
			all = append(all, fmt.Sprintf("%#x", n))
		}
		for _, p := range got.Prefixes {
			all = append(all, "in "+p.String())
		}
		if text := strings.Join(all, " "); err != nil || text != c.want {
			t.Errorf("%+v: %q, %v, want %q", c.s, text, err, c.want)
		}
	}
}

// Sources, roles and MAC addresses, and how many there may be.
func TestSettingsOfStation(t *testing.T) {
	many := func(n int, format string) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf(format, i/256, i%256))
		}
		return all
	}
	const macs, addresses, pairs = "52:54:00:00:%02x:%02x", "10.9.%d.%d", "52:54:00:01:00:01=10.8.%d.%d"
	for what, c := range map[string]struct {
		s     Settings
		learn proto.Learn
		allow proto.Allow
		macs  int
		ok    bool
	}{
		"nothing":              {Settings{}, proto.LearnDHCP | proto.LearnSLAAC, 0, 1, true},
		"no source":            {Settings{Learn: Sources{"none"}}, 0, 0, 1, true},
		"none and another":     {Settings{Learn: Sources{"none", "dhcp"}}, 0, 0, 0, false},
		"two sources":          {Settings{Learn: Sources{"arp", "pd"}}, proto.LearnARP | proto.LearnPD, 0, 1, true},
		"two roles":            {Settings{Allow: Roles{"router", "vrrp"}}, proto.LearnDHCP | proto.LearnSLAAC, proto.AllowRouter | proto.AllowVRRP, 1, true},
		"64 MACs":              {Settings{MACs: many(64, macs)}, proto.LearnDHCP | proto.LearnSLAAC, 0, 64, true},
		"65 MACs":              {Settings{MACs: many(65, macs)}, 0, 0, 0, false},
		"a group":              {Settings{MACs: []string{"01:00:5e:00:00:01"}}, 0, 0, 0, false},
		"256 addresses":        {Settings{Addresses: many(256, addresses)}, proto.LearnDHCP | proto.LearnSLAAC, 0, 1, true},
		"257 addresses":        {Settings{Addresses: many(257, addresses)}, 0, 0, 0, false},
		"256 and a pair":       {Settings{Addresses: many(256, addresses), Pairs: many(1, pairs)}, 0, 0, 0, false},
		"63 pairs and its MAC": {Settings{Pairs: many(63, pairs)}, proto.LearnDHCP | proto.LearnSLAAC, 0, 1, true},
		"64 pairs and its MAC": {Settings{Pairs: many(64, pairs)}, 0, 0, 0, false},
	} {
		const station = 0x5254_0000_0099
		got, err := c.s.config(station, port.VLANSet{})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		} else if c.ok && (got.Learn != c.learn || got.Allow != c.allow || len(got.MACs) != c.macs || slices.Contains(got.MACs, station) != (len(c.s.MACs) == 0)) {
			t.Errorf("%s: %+v", what, got)
		}
	}
}
