package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/vswitch/vswitch/internal/setting"
)

// statePage is vswitch.state(5).
func statePage() string {
	p := newManPage("vswitch.state", "5")
	p.section("NAME")
	p.line(`vswitch.state \- what a virtual Ethernet switch keeps over a restart`)
	p.section("SYNOPSIS")
	p.line("%s", roff("/var/lib/vswitch/NAME/state.json"))
	p.section("DESCRIPTION")
	p.text(stateText)
	p.section("KEYS")
	for _, k := range stateKeys {
		p.item(k[0], k[1])
	}
	p.section("SWITCH SETTINGS")
	p.text("The object switch. A key that is missing means the default.")
	for _, f := range switchFields() {
		p.setting(f, nil)
	}
	p.section("PORT SETTINGS")
	p.text("The object spec of a port, beside name and kind. A key that is missing means the default. Settings of some kinds name these kinds.")
	for _, s := range portCatalog().Settings() {
		p.setting(s.Field, s.Kinds)
	}
	p.section("PORT TRACE")
	p.text("The object trace of a port: what the switch did to the host, and must undo when the port is removed. Leave it as it is.")
	for _, k := range traceKeys {
		p.item(k[0], k[1])
	}
	p.section("ENTRIES, GROUPS AND MIRRORS")
	for _, k := range entryKeys {
		p.item(k[0], k[1])
	}
	p.section("UNITS")
	p.text("Values are text unless their key says otherwise.")
	p.units()
	p.section("EXAMPLE")
	p.text("    " + strings.ReplaceAll(strings.TrimSpace(stateExample), "\n", "\n    "))
	p.section("FILES")
	p.item("state.json", "The state.")
	p.item("journal/", "What the switch is about to change on the host, a file for each port, until this file has it. A start takes back what a kill left unfinished.")
	p.item("history.json", "The last changes of vswitch apply and what takes them back. Without it only the history is lost.")
	p.item("state.json.corrupt-TIME", "A state that could not be read, set aside.")
	p.section("SEE ALSO")
	p.text("vswitch(8)")
	return p.String()
}

// setting writes a setting's key, and what JSON it takes.
func (p *manPage) setting(f setting.Field, kinds []string) {
	s := f.Schema()
	what := s.Type
	if s.Items != nil {
		what = "array of " + s.Items.Type + "s"
	}
	switch {
	case f.Values != nil && s.Type != "boolean":
		what += ": " + strings.Join(f.Values, ", ")
	case s.Maximum != nil && *s.Maximum <= math.MaxUint32:
		what += fmt.Sprintf(", %d to %d", max(f.Min, 0), *s.Maximum)
	}
	text := s.Description + ". Flag: --" + f.Flag + "."
	if kinds != nil {
		text = strings.Join(kinds, ", ") + ": " + text
	}
	p.item(fmt.Sprintf("%s (%s)", f.Key, what), text)
}

const stateText = `A switch keeps its settings, its ports, static entries and mirrors in this file, a JSON object. The commands change
it: a command that changes something returns once the new file is on disk. The daemon writes a temporary file,
syncs it and renames it, so the file is whole after a crash at any moment. With --ephemeral there is no file.

The daemon reads the file once, when it starts. To edit it, stop the daemon first. A file that is not JSON, as a broken
disk leaves it, is set aside, named in the log and never overwritten; the daemon then starts with an empty state. Where
a file has a slip in it, such as a port without a name or one that is there twice, the daemon refuses to start and says
what to mend. A file with a key or a format that this version does not know was written by a newer one: the daemon
refuses to start and names both versions. Files of older versions are read. A port whose settings contradict each other is down and says why.`

// The keys of the file that are no settings.
var (
	stateKeys = [][2]string{
		{"version (number)", "The format, 1."},
		{"written_by (string)", "The version of vswitch that wrote the file."},
		{"switch (object)", "Settings of the switch: see SWITCH SETTINGS."},
		{"ports (array)", "The ports, each an object with spec, what was asked for (PORT SETTINGS), and trace (PORT TRACE)."},
		{"spec.name (string)", "The port's name, which is also its device's."},
		{"spec.kind (string)", "The port's kind; vswitch(8) lists them under PORT KINDS. A port of a kind that this program lacks waits, and its settings stay."},
		{"fdb (array)", "Static and sticky entries of the forwarding database."},
		{"groups (array)", "Static multicast groups."},
		{"applied (array)", "What vswitch apply brought, and its --prune may therefore remove, such as \"port vm0\"."},
		{"pending (object)", "The change of vswitch apply --confirm that waits: by, until (a time), and undo, what takes it back."},
		{"mirrors (array)", "Mirrors."},
	}
	traceKeys = [][2]string{
		{"created (boolean)", "The switch made the device or the socket, and removes it with the port."},
		{"ifname (string)", "The device's name when it was last seen."},
		{"before (object)", "Settings of a device that was there before: up, mtu, disable_ipv6, arp_ignore, addr_gen_mode, static_ipv6, addresses, alias, features. They come back with del-port."},
		{"mac (string)", "The device's own MAC address, to recognize it in another network namespace."},
		{"if_marked (boolean)", "The trace counts only for a device that has the switch's mark: a kill cut short what was about to be done."},
		{"away (string)", "The boot in which the device was moved to another network namespace, from where it may come back."},
	}
	entryKeys = [][2]string{
		{"fdb: mac, vlan, port, sticky", "A station's address, its VLAN (number) and its port; sticky (boolean): the entry ages."},
		{"groups: group, vlan, port", "An IP multicast group that always goes to the port in that VLAN (number)."},
		{"mirrors: name, from, from_vlan, direction, to, to_vlan, snaplen, filter", "As the flags of `vswitch mirror add`. from is an array of ports; to_vlan and snaplen are numbers."},
	}
)

const stateExample = `
{
  "version": 1,
  "switch": {"aging": "1m0s", "stp": true},
  "ports": [
    {
      "spec": {"name": "vm0", "kind": "tap", "access": 10, "isolated": true},
      "trace": {"created": true, "ifname": "vm0"}
    }
  ],
  "fdb": [
    {"mac": "52:54:00:00:00:01", "vlan": 10, "port": "vm0"}
  ]
}
`
