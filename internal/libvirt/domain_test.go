package libvirt_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vswitch/vswitch/internal/libvirt"
)

const head = `<domain type='kvm' id='3'>
  <name>web</name>
  <uuid>9c0f2b52-5d4e-4a0a-8f5f-3f9f7a1c0001</uuid>
  <metadata>
    <other:ports xmlns:other='http://example.org/'><other:port name='not-ours' path='/'/></other:ports>
    <vswitch:ports xmlns:vswitch='https://github.com/vswitch/vswitch/libvirt/1' switch='sw1'>
`

const tail = `
    </vswitch:ports>
  </metadata>
  <devices>
    <disk><source file='/x'/><target dev='vda'/></disk>
    <interface type='ethernet'>
      <mac address='52:54:00:00:00:0a'/><target dev='vm0' managed='no'/><driver queues='2'/><mtu size='9000'/>
    </interface>
    <interface type='ethernet'><target dev='vm1'/></interface>
    <interface type='vhostuser'><source type='unix' path='/run/vswitch/sw1/fast0.sock' mode='client'/></interface>
    <interface type='bridge'><source bridge='br0'/><target dev='vm0'/></interface>
  </devices>
</domain>`

func TestParse(t *testing.T) {
	d, err := libvirt.Parse([]byte(head + `
<vswitch:port name='vm0' access='10' rate-out='100mbit'/>
<vswitch:port name='fast0' kind='vhost-user' switch='sw2' xmlns:x='y' x:color='red'/>` + tail))
	if err != nil {
		t.Fatal(err)
	}
	want := libvirt.Domain{
		Name: "web", UUID: "9c0f2b52-5d4e-4a0a-8f5f-3f9f7a1c0001",
		Ports: []libvirt.Port{
			{Switch: "sw1", Name: "vm0", Kind: "tap", Settings: []libvirt.Setting{{Flag: "access", Text: "10"}, {Flag: "rate-out", Text: "100mbit"}}},
			{Switch: "sw2", Name: "fast0", Kind: "vhost-user"},
		},
		NICs: []libvirt.NIC{
			{Type: "ethernet", MAC: "52:54:00:00:00:0a", Device: "vm0", Queues: 2, MTU: 9000},
			{Type: "ethernet", Device: "vm1", Managed: true},
			{Type: "vhostuser", Path: "/run/vswitch/sw1/fast0.sock", Managed: true},
			{Type: "bridge", Device: "vm0", Managed: true},
		},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, c := range []struct{ device, path, found string }{
		{"vm0", "", "ethernet"}, {"", "/run/vswitch/sw1/fast0.sock", "vhostuser"}, {"vm2", "/run/fast0.sock", ""},
	} {
		if n, ok := d.NIC(c.device, c.path); n.Type != c.found || ok != (c.found != "") {
			t.Errorf("NIC(%q, %q) is %+v, %v", c.device, c.path, n, ok)
		}
	}
}

func TestParseWithoutPorts(t *testing.T) {
	for _, text := range []string{"<domain/>", "<domain><name>a</name><metadata/></domain>"} {
		if d, err := libvirt.Parse([]byte(text)); err != nil || len(d.Ports) > 0 {
			t.Errorf("%s: %v, %v", text, d.Ports, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "no XML of a libvirt domain"},
		{"<network/>", "no XML of a libvirt domain"},
		{"<domain>", "no XML of a libvirt domain"},
		{head + "<vswitch:port/>" + tail, "has no name"},
		{head + "<vswitch:port name='../x'/>" + tail, "../x"},
		{head + "<vswitch:port name='a'/><vswitch:port name='a' kind='host'/>" + tail, "port a twice"},
		{head + "<vswitch:port name='a' access='1' access='2'/>" + tail, "access twice"},
		{head + strings.Repeat("<vswitch:port name='a'/>", 2) + tail, "twice"},
		{strings.Replace(head, "9c0f", "../..", 1) + "<vswitch:port name='a'/>" + tail, "UUID"},
		{strings.Repeat(" ", libvirt.MaxSize+1), "more than"},
	} {
		if _, err := libvirt.Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80q: %v, want %q", c.text, err, c.want)
		}
	}
	many := head
	for c := 'a'; c < 'a'+65; c++ {
		many += "<vswitch:port name='p" + strings.Repeat("x", int(c-'a')%10) + string('a'+(c-'a')/10) + "'/>"
	}
	if _, err := libvirt.Parse([]byte(many + tail)); err == nil || !strings.Contains(err.Error(), "65 ports") {
		t.Errorf("65 ports: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(head + "<vswitch:port name='vm0' access='10'/>" + tail)
	f.Add("<domain><metadata/></domain>")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := libvirt.Parse([]byte(text))
		if err != nil {
			return
		}
		for _, p := range d.Ports {
			if p.Name == "" || strings.ContainsAny(p.Name, "/\x00") || p.Kind == "" && strings.Contains(p.Name, " ") {
				t.Errorf("port %+v", p)
			}
			d.NIC(p.Name, "")
		}
	})
}
