package mirror

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/feature"
)

// item is a mirror as the state and configurations have it.
type item struct {
	Name      string    `json:"name" arg:"NAME" help:"name of the mirror"`
	From      []string  `json:"from,omitempty" arg:"PORTS" help:"ports to copy from"`
	FromVLAN  string    `json:"from_vlan,omitempty" arg:"LIST" help:"VLANs to copy from, such as 10,20-29"`
	Direction direction `json:"direction,omitempty" arg:"WHICH" default:"both" help:"copy frames that the source received (in), sent (out), or both"`
	To        string    `json:"to,omitempty" arg:"PORT" help:"port that copies leave by"`
	ToVLAN    uint16    `json:"to_vlan,omitempty" arg:"VID" max:"4094" min:"1" default:"none" help:"VLAN as whose frames copies leave"`
	SnapLen   int       `json:"snaplen,omitempty" arg:"BYTES" min:"14" default:"all" help:"copy the first bytes of each frame"`
	Filter    string    `json:"filter,omitempty" arg:"EXPR" default:"all" help:"copy the frames that the expression means"`
}

var _ feature.Item = item{}

const bothWays direction = "both"

// AfterMerge implements setting.Merged.
func (i *item) AfterMerge(any, func(string) bool) {
	if i.Direction == bothWays {
		i.Direction = ""
	}
}

// itemOf is the inverse of item.mirror.
func itemOf(a api.Mirror) item {
	i := item{a.Name, a.From, a.FromVLAN, direction(a.Direction), a.To, a.ToVLAN, a.SnapLen, a.Filter}
	i.AfterMerge(nil, nil)
	return i
}

// mirror returns the mirror as the API has it.
func (i item) mirror() api.Mirror {
	return api.Mirror{
		Name: i.Name, From: i.From, FromVLAN: i.FromVLAN, Direction: string(cmp.Or(i.Direction, bothWays)),
		To: i.To, ToVLAN: i.ToVLAN, SnapLen: i.SnapLen, Filter: i.Filter,
	}
}

// ID implements feature.Item.
func (i item) ID() string { return "mirror " + i.Name }

// Words implements feature.Item.
func (i item) Words() string {
	var parts []string
	add := func(given bool, format string, arg any) {
		if given {
			parts = append(parts, fmt.Sprintf(format, arg))
		}
	}
	add(i.From != nil, "from %s", strings.Join(i.From, ","))
	add(i.FromVLAN != "", "from-vlan %s", i.FromVLAN)
	add(i.Direction != "", "direction %s", i.Direction)
	add(i.To != "", "to %s", i.To)
	add(i.ToVLAN != 0, "to-vlan %d", i.ToVLAN)
	add(i.SnapLen != 0, "snaplen %d", i.SnapLen)
	add(i.Filter != "", "filter %q", i.Filter)
	return strings.Join(parts, ", ")
}

// maxName is the longest name of a mirror.
const maxName = 32

// checkName returns an error unless a new mirror may have the name. It becomes part of an URL's path.
func checkName(name string) error {
	switch {
	case name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ' ' || !unicode.IsPrint(r) }):
		return fmt.Errorf("a mirror's name has 1 to %d characters, and neither spaces nor '/'", maxName)
	case name == "." || name == ".." || name[0] == '-':
		return fmt.Errorf("a mirror's name cannot be %q; write one such as m0", name)
	}
	return nil
}

// Check implements feature.Item.
func (i item) Check() error {
	if err := checkName(i.Name); err != nil {
		return err
	}
	switch {
	case i.From == nil && i.FromVLAN == "":
		return errors.New("a mirror copies from somewhere; give from or from_vlan")
	case (i.To == "") == (i.ToVLAN == 0):
		return errors.New("a mirror has one target; give to or to_vlan")
	}
	a := i.mirror()
	_, err := parse(&a)
	return err
}

// Needs implements feature.Item.
func (i item) Needs() (ports []string, vlan uint16) {
	ports = slices.Clone(i.From)
	if i.To != "" {
		ports = append(ports, i.To)
	}
	return ports, 0
}
