package setting

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// TwiceError names a key that one object has twice.
type TwiceError string

func (e TwiceError) Error() string {
	return fmt.Sprintf("the key %q is there twice in one object", string(e))
}

// CheckKeys returns a TwiceError if an object in a JSON text has a key twice: encoding/json would
// take the last value, and drop the other without a word. It says nothing about invalid JSON.
func CheckKeys(text []byte) error {
	type value struct {
		keys map[string]bool // of an object; nil: an array
		key  bool            // a key comes next
	}
	var in []value // the values around the token, the innermost last
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := d.Token()
		if err != nil {
			return nil // the end
		}
		if key, ok := token.(string); ok && len(in) > 0 && in[len(in)-1].key {
			o := &in[len(in)-1]
			if o.keys[key] {
				return TwiceError(key)
			}
			o.keys[key], o.key = true, false
			continue
		}
		switch token {
		case json.Delim('{'):
			in = append(in, value{make(map[string]bool), true})
			continue
		case json.Delim('['):
			in = append(in, value{})
			continue
		case json.Delim('}'), json.Delim(']'):
			in = in[:len(in)-1]
		}
		if len(in) > 0 { // a value ends
			o := &in[len(in)-1]
			o.key = o.keys != nil
		}
	}
}

// OtherCase returns a key of a JSON text that differs from one of the type t in its case alone: there,
// encoding/json would take it for that one, and of two such keys the last. It returns "" if there is
// none.
func OtherCase(text []byte, t reflect.Type) string {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return "" // it knows its keys
	}
	switch t.Kind() {
	case reflect.Pointer:
		return OtherCase(text, t.Elem())
	case reflect.Slice:
		var all []json.RawMessage
		if json.Unmarshal(text, &all) == nil {
			for _, one := range all {
				if key := OtherCase(one, t.Elem()); key != "" {
					return key
				}
			}
		}
	case reflect.Struct:
		var all map[string]json.RawMessage
		if json.Unmarshal(text, &all) != nil {
			return ""
		}
		fields := make(map[string]reflect.Type)
		for _, f := range reflect.VisibleFields(t) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.IsExported() && name != "-" {
				fields[cmp.Or(name, f.Name)] = f.Type
			}
		}
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if of := fields[key]; of != nil {
				if bad := OtherCase(all[key], of); bad != "" {
					return bad
				}
				continue
			}
			for name := range fields {
				if strings.EqualFold(key, name) {
					return key
				}
			}
		}
	}
	return ""
}
