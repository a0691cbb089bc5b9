package feature

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/vswitch/vswitch/internal/setting"
)

// Items says that what a feature keeps is a list of items: its State is the JSON of []T, T being
// the type of Zero, sorted, and Restore takes such a list in any order. A configuration has the
// list as the section of the feature's key, and adds, changes and removes single items.
type Items struct {
	Zero     Item     // the zero value of an item, a settings struct
	Help     string   // what the items are, in a few words
	Required []string // the keys that every item has
	Named    bool     // an item's name is at the key name, and the section maps names to items

	// PortBound says that an item is removed with a port that it needs.
	PortBound bool

	// Possible returns why there cannot be items with these settings, which have the type of
	// Feature.Switch, and what to do. Nil: there always can.
	Possible func(settings any) error
}

// Item is one of the items that a feature keeps. Two with the same settings are equal texts in
// JSON.
type Item interface {
	// ID is what the item is, in words that no other item of any feature has: "mirror m0".
	ID() string

	// Words are its other settings, for a plan of changes; they may be empty.
	Words() string

	// Check returns what is wrong with it on any switch.
	Check() error

	// Needs returns the ports that it names, and the VLAN that these must carry; 0: any.
	Needs() (ports []string, vlan uint16)
}

// ReadKept reads what a feature keeps into the value that to points to; null changes nothing. It refuses unknown keys, which
// a newer version wrote, or the user of a configuration.
func ReadKept(state json.RawMessage, to any) error {
	if state == nil {
		return nil
	}
	if key := setting.OtherCase(state, reflect.TypeOf(to).Elem()); key != "" {
		return fmt.Errorf("json: unknown field %q", key)
	}
	d := json.NewDecoder(bytes.NewReader(state))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

// ReadItems reads the items that a feature keeps; null is none. It refuses unknown keys, which a
// newer version wrote, and an item that is there twice.
func ReadItems[T Item](state json.RawMessage) (all []T, err error) {
	if err := ReadKept(state, &all); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, item := range all {
		if id := item.ID(); seen[id] {
			return nil, fmt.Errorf("%s is there twice", id)
		} else {
			seen[id] = true
		}
	}
	return all, nil
}
