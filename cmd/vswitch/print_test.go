package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
)

func TestTraffic(t *testing.T) {
	got := traffic(api.Counters{Frames: 3, Bytes: 180, Dropped: map[string]uint64{"runt": 1, "no_carrier": 2}})
	if want := "3 frames, 180 bytes, 3 dropped (no_carrier 2, runt 1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func specOf(t *testing.T, s api.Settings) api.Spec {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return api.Spec{RawMessage: b}
}

func TestQEMUArgs(t *testing.T) {
	sw := api.Switch{Name: "sw0", SocketDir: "/run/vswitch/sw0"}
	const device = ` -device virtio-net-pci,netdev=vm0,mac=52:54:00:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}`
	for _, c := range []struct {
		kind         string
		spec         api.Settings
		memory, want string
	}{
		{"tap", api.Settings{}, "", "-netdev tap,id=vm0,ifname=vm0,script=no,downscript=no" + device},
		{"tap", api.Settings{"queues": 4}, "", "-netdev tap,id=vm0,ifname=vm0,script=no,downscript=no,queues=4" + device + ",mq=on,vectors=10"},
		{"tap", api.Settings{"mtu": 9000}, "", "-netdev tap,id=vm0,ifname=vm0,script=no,downscript=no" + device + ",host_mtu=9000"},
		{"vhost-user", api.Settings{}, "", "-chardev socket,id=char-vm0,path=/run/vswitch/sw0/vm0.sock,reconnect=1 -netdev vhost-user,id=vm0,chardev=char-vm0" + device},
		{"vhost-user", api.Settings{"path": "/s,t", "client": true}, "512M", "-m 512M -object memory-backend-memfd,id=mem,size=512M,share=on -numa node,memdev=mem " +
			"-chardev socket,id=char-vm0,path=/s,,t,server=on -netdev vhost-user,id=vm0,chardev=char-vm0" + device},
		{"stream", api.Settings{}, "", "-netdev stream,id=vm0,server=off,addr.type=unix,addr.path=/run/vswitch/sw0/vm0.sock" + device},
		{"stream", api.Settings{"path": "/s", "client": true}, "", "-netdev stream,id=vm0,server=on,addr.type=unix,addr.path=/s" + device},
		{"dgram", api.Settings{"path": "/s"}, "", "-netdev dgram,id=vm0,local.type=unix,local.path=/s.vm,remote.type=unix,remote.path=/s" + device},
		{"dgram", api.Settings{"path": "/s", "client": true}, "", "-netdev dgram,id=vm0,local.type=unix,local.path=/s,remote.type=unix,remote.path=/s.sw" + device},
	} {
		p := api.Port{Name: "vm0", Kind: c.kind, Spec: specOf(t, c.spec)}
		got, err := qemuArgs(sw, p, c.memory)
		if err != nil || !regexp.MustCompile("^"+c.want+"$").MatchString(got) {
			t.Errorf("%s %v: %v\n got %s\nwant %s", c.kind, c.spec, err, got, c.want)
		}
		if again, _ := qemuArgs(sw, p, c.memory); again != got {
			t.Errorf("the second time: %s", again)
		}
	}
	// The device's MTU counts, wherever it has it from.
	for mtu, want := range map[int]string{1500: "", 1400: ",host_mtu=1400", 9000: ",host_mtu=9000"} {
		got, err := qemuArgs(sw, api.Port{Name: "vm0", Kind: "tap", MTU: mtu}, "")
		if _, after, _ := strings.Cut(got, "mac="); err != nil || after[len("52:54:00:00:00:00"):] != want {
			t.Errorf("a TAP of MTU %d: %s, %v", mtu, got, err)
		}
	}
	odd := api.Port{Name: "0,a", Kind: "tap", Ifname: "b,c"}
	if got, _ := qemuArgs(sw, odd, ""); !strings.HasPrefix(got, "-netdev tap,id=net0_a,ifname=b,,c,script") {
		t.Errorf("for odd names: %s", got)
	}
	if _, err := qemuArgs(sw, odd, "512M"); err == nil || !strings.Contains(err.Error(), "--memory") {
		t.Errorf("memory for a TAP: %v", err)
	}
	for _, kind := range []string{"host", "netdev"} {
		if _, err := qemuArgs(sw, api.Port{Name: "x", Kind: kind}, ""); err == nil || !strings.Contains(err.Error(), "kind tap") {
			t.Errorf("for a port of the kind %s: %v", kind, err)
		}
	}
}

// The daemon says which address the machine has; one that does not know is an older one.
func TestQEMUMAC(t *testing.T) {
	p := api.Port{Name: "vm0", Kind: "tap", GuestMAC: 0x525400abcdef}
	if got, _ := qemuArgs(api.Switch{Name: "sw0"}, p, ""); !strings.HasSuffix(got, ",mac=52:54:00:ab:cd:ef") {
		t.Errorf("with an address from the daemon: %s", got)
	}
	p.GuestMAC = 0
	if got, _ := qemuArgs(api.Switch{Name: "sw0"}, p, ""); !strings.HasSuffix(got, ",mac=52:54:00:43:91:1d") {
		t.Errorf("without: %s", got)
	}
}
