package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/qemu"
	"github.com/vswitch/vswitch/port"
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
		got, err := qemuLine(sw, p, c.memory, qemu.Version{})
		if err != nil || !regexp.MustCompile("^"+c.want+"$").MatchString(got) {
			t.Errorf("%s %v: %v\n got %s\nwant %s", c.kind, c.spec, err, got, c.want)
		}
		if again, _ := qemuLine(sw, p, c.memory, qemu.Version{}); again != got {
			t.Errorf("the second time: %s", again)
		}
	}
	// The device's MTU counts, wherever it has it from.
	for mtu, want := range map[int]string{1500: "", 1400: ",host_mtu=1400", 9000: ",host_mtu=9000"} {
		got, err := qemuLine(sw, api.Port{Name: "vm0", Kind: "tap", MTU: mtu}, "", qemu.Version{})
		if _, after, _ := strings.Cut(got, "mac="); err != nil || after[len("52:54:00:00:00:00"):] != want {
			t.Errorf("a TAP of MTU %d: %s, %v", mtu, got, err)
		}
	}
	// What fits through a tunnel counts more, for machines behind sockets too.
	for _, kind := range []string{"tap", "vhost-user", "stream", "dgram"} {
		if got, err := qemuLine(sw, api.Port{Name: "vm0", Kind: kind, MTU: 1500, GuestMTU: 1450}, "", qemu.Version{}); err != nil || !strings.HasSuffix(got, ",host_mtu=1450") {
			t.Errorf("%s behind a tunnel: %s, %v", kind, got, err)
		}
	}
	odd := api.Port{Name: "0,a", Kind: "tap", Ifname: "b,c"}
	if got, _ := qemuLine(sw, odd, "", qemu.Version{}); !strings.HasPrefix(got, "-netdev tap,id=net0_a,ifname=b,,c,script") {
		t.Errorf("for odd names: %s", got)
	}
	if _, err := qemuLine(sw, odd, "512M", qemu.Version{}); err == nil || !strings.Contains(err.Error(), "--memory") {
		t.Errorf("memory for a TAP: %v", err)
	}
	for _, kind := range []string{"host", "netdev"} {
		if _, err := qemuLine(sw, api.Port{Name: "x", Kind: kind}, "", qemu.Version{}); err == nil || !strings.Contains(err.Error(), "kind tap") {
			t.Errorf("for a port of the kind %s: %v", kind, err)
		}
	}
}

// The daemon says which address the machine has; one that does not know is an older one.
func TestQEMUMAC(t *testing.T) {
	p := api.Port{Name: "vm0", Kind: "tap", GuestMAC: 0x525400abcdef}
	if got, _ := qemuLine(api.Switch{Name: "sw0"}, p, "", qemu.Version{}); !strings.HasSuffix(got, ",mac=52:54:00:ab:cd:ef") {
		t.Errorf("with an address from the daemon: %s", got)
	}
	p.GuestMAC = 0
	if got, _ := qemuLine(api.Switch{Name: "sw0"}, p, "", qemu.Version{}); !strings.HasSuffix(got, ",mac=52:54:00:43:91:1d") {
		t.Errorf("without: %s", got)
	}
}

// Each version of QEMU is given what it takes.
func TestQEMUReconnects(t *testing.T) {
	for version, want := range map[string][2]string{
		"":         {",reconnect=1", ""},
		"7.2":      {",reconnect=1", ""},
		"8.0":      {",reconnect=1", ",reconnect=1"},
		"8.2.2":    {",reconnect=1", ",reconnect=1"},
		"9":        {",reconnect=1", ",reconnect=1"},
		"9.1.90":   {",reconnect=1", ",reconnect=1"},
		"9.2":      {",reconnect-ms=1000", ",reconnect-ms=1000"},
		"10.2.0":   {",reconnect-ms=1000", ",reconnect-ms=1000"},
		"11.0-rc1": {",reconnect-ms=1000", ",reconnect-ms=1000"},
	} {
		var v qemu.Version
		if version != "" {
			var err error
			if v, err = qemu.ParseVersion(version); err != nil {
				t.Error(err)
			}
		}
		for i, kind := range []string{"vhost-user", "stream"} {
			p := api.Port{Name: "vm0", Kind: kind, Spec: specOf(t, api.Settings{"path": "/s"})}
			got, err := qemuLine(api.Switch{}, p, "", v)
			if has := strings.Contains(got, "path=/s"+want[i]+" "); err != nil || !has {
				t.Errorf("%s for QEMU %q: %s, %v; want path=/s%s", kind, version, got, err, want[i])
			}
			p.Spec = specOf(t, api.Settings{"path": "/s", "client": true})
			if got, _ := qemuLine(api.Switch{}, p, "", v); strings.Contains(got, "reconnect") {
				t.Errorf("%s that QEMU serves connects again: %s", kind, got)
			}
		}
	}
	for _, bad := range []string{"x", "9.x", "-1", "9,2", " 9.2", "99999.1"} {
		if v, err := qemu.ParseVersion(bad); err == nil {
			t.Errorf("%q is version %v", bad, v)
		}
	}
}

// A QEMU without netdevs on sockets gets none, and a size of memory means the same in all flags.
func TestQEMUTakesTheFlags(t *testing.T) {
	for version, want := range map[string]bool{"2.12": false, "6.2.0": false, "7": false, "7.1.93": false, "7.2": true, "8.0": true} {
		v, err := qemu.ParseVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		for kind, has := range map[string]bool{"stream": want, "dgram": want, "tap": true, "vhost-user": true} {
			if _, err := qemuLine(api.Switch{}, api.Port{Name: "vm0", Kind: kind}, "", v); (err == nil) != has {
				t.Errorf("%s for QEMU %s: %v", kind, version, err)
			}
		}
	}
	p := api.Port{Name: "fast0", Kind: "vhost-user"}
	for memory, want := range map[string]string{"512": "512M", "512M": "512M", "4g": "4g", "1.5G": "1.5G", "0.5G": "0.5G"} {
		got, err := qemuLine(api.Switch{}, p, memory, qemu.Version{})
		if err != nil || !strings.Contains(got, "-m "+want+" -object memory-backend-memfd,id=mem,size="+want+",") {
			t.Errorf("%q: %s, %v; want %s", memory, got, err, want)
		}
	}
	for _, bad := range []string{"0", "0M", "0.0G", "-5", "x", "M", "1.G", "512MB", "1 G", "1,2", "9999999999999"} {
		if got, err := qemuLine(api.Switch{}, p, bad, qemu.Version{}); err == nil || !strings.Contains(err.Error(), "--memory") {
			t.Errorf("%q: %s, %v", bad, got, err)
		}
	}
}

// qemuLine is the line that qemu-args prints.
func qemuLine(s api.Switch, p api.Port, memory string, v qemu.Version) (string, error) {
	args, err := qemuArgs(s, p, memory, v)
	return qemu.Line(args), err
}

// The QEMU at hand is asked, one that says nonsense or nothing is an unknown one, and one
// that hangs is not waited for.
func TestFindQEMU(t *testing.T) {
	for script, want := range map[string]qemu.Version{
		"echo 'QEMU emulator version 9.2.1 (Debian)'": {Major: 9, Minor: 2},
		"echo nonsense": {},
		"exit 1":        {},
		"yes":           {},
		"{ sleep 10; echo 'QEMU emulator version 9.2.1'; } & wait": {}, // a child, which outlives the shell
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "qemu-system-"+qemuMachine), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":/usr/bin:/bin")
		if got := findQEMU(t.Context()); got != want {
			t.Errorf("%s: %v, want %v", script, got, want)
		}
	}
}

func TestLibvirtXML(t *testing.T) {
	mac := port.MAC(0x525400abcdef)
	sw := api.Switch{Name: "sw0", SocketDir: "/run/vswitch/sw0"}
	for _, c := range []struct{ kind, spec, want string }{
		{"tap", `{"queues": 4, "mtu": 9000}`, `<interface type="ethernet">
  <mac address="52:54:00:ab:cd:ef"/>
  <target dev="vm0" managed="no"/>
  <model type="virtio"/>
  <driver queues="4"/>
  <mtu size="9000"/>
</interface>`},
		{"vhost-user", `{}`, `<interface type="vhostuser">
  <mac address="52:54:00:ab:cd:ef"/>
  <source type="unix" path="/run/vswitch/sw0/vm0.sock" mode="client">
    <reconnect enabled="yes" timeout="1"/>
  </source>
  <model type="virtio"/>
</interface>
<!-- The domain needs this beside its devices:
<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>
-->`},
	} {
		got, err := libvirtXML(sw, api.Port{Name: "vm0", Kind: c.kind, GuestMAC: mac, Spec: api.Spec{RawMessage: []byte(c.spec)}})
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", c.kind, err, diff)
		}
	}
	for kind, want := range map[string]string{"stream": "no interface for stream ports; add one of the kind tap, vhost-user", "host": "not for a virtual machine"} {
		if _, err := libvirtXML(sw, api.Port{Name: "x", Kind: kind}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
