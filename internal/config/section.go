package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/vswitch/vswitch/internal/setting"
)

// Section describes a section of items, such as static entries or mirrors.
type Section struct {
	Key      string // in a document
	Help     string // what the items are
	Fields   []setting.Field
	Required []string // the keys that every item has
	Named    bool     // an item's name is at the key name, and the section maps names to items

	// Read returns an item with its defaults, and what it is in words that no other item has.
	Read func(setting.Patch) (item setting.Patch, id string, err error)
}

// fields returns the settings of an item in a file.
func (s *Section) fields() (all []setting.Field) {
	for _, f := range s.Fields {
		if !s.Named || f.Key != nameKey {
			all = append(all, f)
		}
	}
	return all
}

// nameKey is the key of a named item's name.
const nameKey = "name"

// name returns the name of a named item.
func name(item setting.Patch) (text string) {
	_ = json.Unmarshal(item[nameKey], &text) // a name is a text
	return text
}

// At returns the path of an item, which is the one at an index of its section.
func (s *Section) At(index int, item setting.Patch) Path {
	if s.Named {
		return At(s.Key, name(item))
	}
	return At(s.Key, index)
}

// section returns the section with a key; nil: there is none.
func (f *Format) section(key string) *Section {
	i := slices.IndexFunc(f.Sections, func(s Section) bool { return s.Key == key })
	if i < 0 {
		return nil
	}
	return &f.Sections[i]
}

// Encode writes a document as JSON, in the order of a file.
func (f Format) Encode(d Document) (json.RawMessage, error) {
	b := fmt.Appendf(nil, `{"version":%d`, d.Version)
	add := func(key string, part any) error {
		text, err := json.Marshal(part)
		b = fmt.Appendf(b, ",%q:%s", key, text)
		return err
	}
	var failed error
	if d.Switch != nil {
		failed = add("switch", d.Switch)
	}
	if d.Ports != nil {
		failed = cmp.Or(failed, add("ports", d.Ports))
	}
	for i := range f.Sections {
		if s := &f.Sections[i]; d.Items[s.Key] != nil {
			failed = cmp.Or(failed, add(s.Key, s.encode(d.Items[s.Key])))
		}
	}
	if d.Features != nil {
		failed = cmp.Or(failed, add("features", d.Features))
	}
	return append(b, '}'), failed
}

// encode returns what the JSON of a section is made of.
func (s *Section) encode(items []setting.Patch) any {
	if !s.Named {
		return items
	}
	named := make(map[string]setting.Patch, len(items))
	for _, item := range items {
		rest := maps.Clone(item)
		delete(rest, nameKey)
		named[name(item)] = rest
	}
	return named
}

// Decode reads a document from JSON. Its settings and items are not checked.
func (f Format) Decode(b []byte) (d Document, err error) {
	all := setting.Patch{}
	if err := json.Unmarshal(b, &all); err != nil {
		return Document{}, err
	}
	for key, to := range map[string]any{"version": &d.Version, "switch": &d.Switch, "ports": &d.Ports, "features": &d.Features} {
		if err := all.Take(key, to); err != nil {
			return Document{}, err
		}
	}
	d.Items = make(map[string][]setting.Patch)
	for _, key := range all.Keys() {
		s := f.section(key)
		if s == nil {
			return Document{}, fmt.Errorf("there is no section %q", key)
		}
		if d.Items[key], err = s.decode(all[key]); err != nil {
			return Document{}, fmt.Errorf("%s: %w", key, err)
		}
	}
	return d, checkVersion(d.Version)
}

func (s *Section) decode(b json.RawMessage) (items []setting.Patch, err error) {
	items = []setting.Patch{}
	if !s.Named {
		err = json.Unmarshal(b, &items)
		return items, err
	}
	var named map[string]setting.Patch
	if err := json.Unmarshal(b, &named); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		items = append(items, named[name].With(nameKey, name))
	}
	return items, nil
}
