package qemu

import (
	"encoding/xml"
	"regexp"
)

// Interface is the <interface> element of a libvirt domain. Kinds of port fill it in; the MAC
// and the model are added for them. See libvirt's formatdomain.html, "Network interfaces".
type Interface struct {
	XMLName xml.Name `xml:"interface"`
	Type    string   `xml:"type,attr"`
	MAC     Address  `xml:"mac"`
	Source  *Source  `xml:"source"`
	Target  *Target  `xml:"target"`
	Model   Model    `xml:"model"`
	Driver  *Driver  `xml:"driver"`
	MTU     *Size    `xml:"mtu"`

	// Needs are elements of the domain outside of <interface> without which it does not work,
	// as XML.
	Needs string `xml:"-"`
}

// Address is a MAC address.
type Address struct {
	Address string `xml:"address,attr"`
}

// Source is the unix socket of a vhostuser interface. Mode is QEMU's end: client or server.
type Source struct {
	Type      string     `xml:"type,attr"`
	Path      string     `xml:"path,attr"`
	Mode      string     `xml:"mode,attr"`
	Reconnect *Reconnect `xml:"reconnect"`
}

// Reconnect has QEMU connect again some seconds after a connection ends.
type Reconnect struct {
	Enabled string `xml:"enabled,attr"`
	Timeout int    `xml:"timeout,attr"`
}

// Target is a network interface of the host. If Managed is no, libvirt neither makes it nor
// takes it down.
type Target struct {
	Dev     string `xml:"dev,attr"`
	Managed string `xml:"managed,attr,omitempty"`
}

// Model is the guest's device.
type Model struct {
	Type string `xml:"type,attr"`
}

// Driver has the number of queues of a device with several.
type Driver struct {
	Queues int `xml:"queues,attr"`
}

// Size is the guest's MTU.
type Size struct {
	Size int `xml:"size,attr"`
}

// QueuesOf returns the driver of a device with n queues; nil if one queue needs none.
func QueuesOf(n int) *Driver {
	if n < 2 {
		return nil
	}
	return &Driver{n}
}

// SizeOf returns the element that gives the guest's NIC its MTU; nil: its own.
func SizeOf(mtu int) *Size {
	if mtu == 0 || mtu == etherMTU {
		return nil
	}
	return &Size{mtu}
}

// SharedMemory is what a domain needs whose memory the switch reads.
const SharedMemory = `<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>`

// Write returns the element as text.
func (i *Interface) Write() (string, error) {
	b, err := xml.MarshalIndent(i, "", "  ")
	return empty.ReplaceAllString(string(b), "/>"), err
}

// empty matches the end of an element without content, which people write shorter.
var empty = regexp.MustCompile(`></\w+>`)
