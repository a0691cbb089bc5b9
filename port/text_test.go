package port_test

import (
	"slices"
	"testing"

	"github.com/vswitch/vswitch/port"
)

func TestVLANSet(t *testing.T) {
	for text, want := range map[string]string{
		"10": "10", "10,20-29": "10,20-29", "20-29,10": "10,20-29", "1,2,3,5": "1-3,5",
		"1-4094": "1-4094", "all": "1-4094", "4094": "4094", " 7 ,8": "7-8",
	} {
		s, err := port.ParseVLANSet(text)
		if err != nil || s.String() != want {
			t.Errorf("%q is %q, %v; want %q", text, s.String(), err, want)
		}
		if again, err := port.ParseVLANSet(s.String()); err != nil || again != s {
			t.Errorf("%q is not read back: %v", s.String(), err)
		}
	}
	for _, bad := range []string{"", "0", "4095", "10-", "-10", "20-10", "1,,2", "010", "1-010", "ten", "10;20"} {
		if _, err := port.ParseVLANSet(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	var s port.VLANSet
	s.Add(63)
	s.Add(64)
	s.Add(4094)
	s.Remove(64)
	if got := slices.Collect(s.All()); !slices.Equal(got, []uint16{63, 4094}) || s.Len() != 2 || s.Has(64) || !s.Has(63) {
		t.Errorf("%v", got)
	}
	if port.AllVLANs.Len() != 4094 || port.AllVLANs.Has(0) || port.AllVLANs.Has(4095) {
		t.Error("all VLANs are not 1 to 4094")
	}
}

func TestRate(t *testing.T) {
	for text, want := range map[string]port.Rate{
		"100pps": {PerSecond: 100}, "2kpps": {PerSecond: 2000}, "1.5mpps": {PerSecond: 1_500_000},
		"10mbit": {PerSecond: 10_000_000, Bits: true}, "1gbit": {PerSecond: 1e9, Bits: true}, "64KBIT": {PerSecond: 64_000, Bits: true},
		"800bit": {PerSecond: 800, Bits: true}, "off": {}, "0": {}, "": {},
	} {
		r, err := port.ParseRate(text)
		if err != nil || r != want {
			t.Errorf("%q is %+v, %v; want %+v", text, r, err, want)
		}
		if again, err := port.ParseRate(r.String()); err != nil || again != r {
			t.Errorf("%q is read back as %+v, %v", r.String(), again, err)
		}
	}
	for _, bad := range []string{
		"100", "pps", "-5pps", "1e99gbit", "0.1pps", "10mbps", "nanbit", "infbit", "0x10bit", "1_0bit", " 5bit",
		"0bit", "0mbit", "0pps", "0.9bit", "4294967295kbit", "5000gbit", "99999999999999999999gbit", "0m", "5000gbit/s", "1tbit",
	} {
		if r, err := port.ParseRate(bad); err == nil {
			t.Errorf("%q is taken as %+v", bad, r)
		}
	}
}

// Whatever text a client sends, ParseRate answers, and what it takes can be read back.
func FuzzParseRate(f *testing.F) {
	for _, text := range []string{"10mbit", "1.5mpps", "100M", "0mbit", "5000gbit", "off", "1e400bit"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := port.ParseRate(text)
		if err != nil {
			return
		}
		if again, err := port.ParseRate(r.String()); err != nil || again != r {
			t.Fatalf("%q is %+v, read back as %+v, %v", text, r, again, err)
		}
	})
}
