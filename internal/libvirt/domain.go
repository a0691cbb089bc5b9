// Package libvirt reads what the XML of a libvirt domain says about ports of switches: the ports
// that its metadata asks for, and the NICs that will be at them. It does no I/O and trusts
// nothing: whoever calls it decides which settings the metadata may have.
package libvirt

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"regexp"

	"github.com/vswitch/vswitch/port"
)

// Namespace is that of the metadata:
//
//	<metadata>
//	  <vswitch:ports xmlns:vswitch='https://github.com/vswitch/vswitch/libvirt/1' switch='sw0'>
//	    <vswitch:port name='vm0' access='10' rate-out='100mbit' guard='on'/>
//	    <vswitch:port name='fast0' kind='vhost-user'/>
//	  </vswitch:ports>
//	</metadata>
const Namespace = "https://github.com/vswitch/vswitch/libvirt/1"

// Bounds of what a domain may have.
const (
	MaxSize  = 4 << 20 // of its XML, in bytes
	maxPorts = 64
)

// Domain is a machine of libvirt.
type Domain struct {
	Name, UUID string
	Ports      []Port
	NICs       []NIC
}

// Port is a port that a domain asks for. Switch is empty for the usual one.
type Port struct {
	Switch, Name, Kind string
	Settings           []Setting // in the order of the XML; none is twice in it
}

// Setting is an attribute of a port: a setting as its flag takes it.
type Setting struct{ Flag, Text string }

// NIC is an <interface> of a domain. What it does not say is empty or 0.
type NIC struct {
	Type   string // such as ethernet, vhostuser
	MAC    string
	Queues int
	MTU    int

	Device  string // of type ethernet: the interface of the host
	Managed bool   // whether libvirt makes and deletes that
	Path    string // of type vhostuser: the socket
}

// element is the XML of a domain as far as it matters here.
type element struct {
	XMLName  xml.Name `xml:"domain"`
	Name     string   `xml:"name"`
	UUID     string   `xml:"uuid"`
	Metadata struct {
		Asked []struct {
			Switch string `xml:"switch,attr"`
			Ports  []struct {
				Attrs []xml.Attr `xml:",any,attr"`
			} `xml:"https://github.com/vswitch/vswitch/libvirt/1 port"`
		} `xml:"https://github.com/vswitch/vswitch/libvirt/1 ports"`
	} `xml:"metadata"`
	NICs []struct {
		Type string `xml:"type,attr"`
		MAC  struct {
			Address string `xml:"address,attr"`
		} `xml:"mac"`
		Source struct {
			Path string `xml:"path,attr"`
		} `xml:"source"`
		Target struct {
			Dev     string `xml:"dev,attr"`
			Managed string `xml:"managed,attr"`
		} `xml:"target"`
		Driver struct {
			Queues int `xml:"queues,attr"`
		} `xml:"driver"`
		MTU struct {
			Size int `xml:"size,attr"`
		} `xml:"mtu"`
	} `xml:"devices>interface"`
}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Parse reads the XML of a domain. One without metadata of ours has no Ports.
func Parse(text []byte) (Domain, error) {
	if len(text) > MaxSize {
		return Domain{}, fmt.Errorf("the domain's XML has more than %d bytes", MaxSize)
	}
	var e element
	if err := xml.Unmarshal(text, &e); err != nil {
		return Domain{}, fmt.Errorf("this is no XML of a libvirt domain: %w", err)
	}
	d := Domain{Name: e.Name, UUID: e.UUID}
	for _, n := range e.NICs {
		d.NICs = append(d.NICs, NIC{
			Type: n.Type, MAC: n.MAC.Address, Queues: n.Driver.Queues, MTU: n.MTU.Size,
			Device: n.Target.Dev, Managed: n.Target.Managed != "no", Path: n.Source.Path,
		})
	}
	seen := make(map[[2]string]bool)
	for _, asked := range e.Metadata.Asked {
		for _, p := range asked.Ports {
			port, err := portOf(asked.Switch, p.Attrs)
			if err != nil {
				return Domain{}, err
			}
			key := [2]string{port.Switch, port.Name}
			if seen[key] {
				return Domain{}, fmt.Errorf("the metadata has port %s twice; name each port once", port.Name)
			}
			seen[key] = true
			d.Ports = append(d.Ports, port)
		}
	}
	if len(d.Ports) > maxPorts {
		return Domain{}, fmt.Errorf("the metadata has %d ports; a domain has at most %d", len(d.Ports), maxPorts)
	}
	if len(d.Ports) > 0 && !uuid.MatchString(d.UUID) {
		return Domain{}, fmt.Errorf("the domain's UUID is %q; libvirt writes 36 characters", d.UUID)
	}
	return d, nil
}

func portOf(of string, attrs []xml.Attr) (Port, error) {
	p := Port{Switch: of, Kind: "tap"}
	seen := make(map[string]bool)
	for _, a := range attrs {
		if a.Name.Space != "" || a.Name.Local == "xmlns" {
			continue // a declaration, or somebody else's
		}
		if seen[a.Name.Local] {
			return Port{}, fmt.Errorf("a port of the metadata has %s twice", a.Name.Local)
		}
		seen[a.Name.Local] = true
		switch a.Name.Local {
		case "name":
			p.Name = a.Value
		case "kind":
			p.Kind = a.Value
		case "switch":
			p.Switch = cmp.Or(a.Value, p.Switch)
		default:
			p.Settings = append(p.Settings, Setting{a.Name.Local, a.Value})
		}
	}
	if p.Name == "" {
		return Port{}, errors.New("a port of the metadata has no name; write <vswitch:port name='vm0'/>")
	}
	return p, port.CheckName(p.Name)
}

// NIC returns the domain's interface on a TAP of that name, or at the socket of that path.
func (d *Domain) NIC(device, path string) (NIC, bool) {
	for _, n := range d.NICs {
		if n.Type == "ethernet" && n.Device == device || n.Type == "vhostuser" && n.Path == path {
			return n, true
		}
	}
	return NIC{}, false
}
