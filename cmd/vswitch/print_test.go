package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

func TestEveryDropIsExplained(t *testing.T) {
	seen := make(map[string]port.Drop)
	for d := port.DropNone + 1; d < port.NumDrops; d++ {
		w := dropWords[d.String()]
		if w == "" || strings.Contains(w, "\n") {
			t.Errorf("%s is explained by %q", d, w)
		}
		if other, ok := seen[w]; ok {
			t.Errorf("%s and %s are explained alike", d, other)
		}
		seen[w] = d
	}
}

func TestTraffic(t *testing.T) {
	got := traffic(api.Counters{Frames: 3, Bytes: 180, Dropped: map[string]uint64{"runt": 1, "no_carrier": 2}})
	if want := "3 frames, 180 bytes, 3 dropped (no_carrier 2, runt 1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestQEMUArgs(t *testing.T) {
	got, err := qemuArgs("sw0", "vm0", "tap", "vm0", 0)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^-netdev tap,id=vm0,ifname=vm0,script=no,downscript=no ` +
		`-device virtio-net-pci,netdev=vm0,mac=52:54:00:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}$`)
	if !want.MatchString(got) {
		t.Errorf("got %s", got)
	}
	if again, _ := qemuArgs("sw0", "vm0", "tap", "vm0", 0); again != got {
		t.Errorf("the second time: %s", again)
	}
	if got, _ := qemuArgs("sw0", "0,a", "tap", "b,c", 0); !strings.HasPrefix(got, "-netdev tap,id=net0_a,ifname=b,,c,script") {
		t.Errorf("for odd names: %s", got)
	}
	if got, _ := qemuArgs("sw0", "vm0", "tap", "vm0", 4); !strings.Contains(got, "downscript=no,queues=4 ") || !strings.HasSuffix(got, ",mq=on,vectors=10") {
		t.Errorf("for four queues: %s", got)
	}
	for _, kind := range []string{"host", "netdev"} {
		if _, err := qemuArgs("sw0", "x", kind, "x", 0); err == nil || !strings.Contains(err.Error(), "kind tap") {
			t.Errorf("for a port of the kind %s: %v", kind, err)
		}
	}
}

// No two ports have one address, in one switch or in two.
func TestQEMUMACsDiffer(t *testing.T) {
	seen := make(map[port.MAC]string)
	for _, names := range [][2]string{{"sw0", "vm0"}, {"sw0", "vm1"}, {"sw1", "vm0"}, {"sw", "0vm0"}, {"sw0v", "m0"}} {
		mac := qemuMAC(names[0], names[1])
		if other, ok := seen[mac]; ok {
			t.Errorf("%v has the address of %s", names, other)
		}
		if mac.IsGroup() {
			t.Errorf("%v has a group's address", names)
		}
		seen[mac] = names[0] + " " + names[1]
	}
}
