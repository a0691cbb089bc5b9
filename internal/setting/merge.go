package setting

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Patch is a change of settings: a JSON object with the keys that change. Null unsets a
// setting (RFC 7396).
type Patch map[string]json.RawMessage

// Set puts the JSON of value at key.
func (p Patch) Set(key string, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("setting: %s has no JSON: %v", key, err)) // a programming error
	}
	p[key] = b
}

// With returns a copy of the patch with the JSON of value at key.
func (p Patch) With(key string, value any) Patch {
	all := make(Patch, len(p)+1)
	all.Add(p)
	all.Set(key, value)
	return all
}

// PatchOf returns the settings that are set in a struct. It is nil if of is nil.
func PatchOf(of any) Patch {
	p := Patch{}
	if of == nil {
		return p
	}
	for _, f := range Fields(of) {
		if !f.IsZero(of) {
			p.Set(f.Key, f.Get(of))
		}
	}
	return p
}

// Add puts all of q into p.
func (p Patch) Add(q Patch) { maps.Copy(p, q) }

// Take reads the value at key into to and removes it. Without the key, to is unchanged.
func (p Patch) Take(key string, to any) error {
	text, ok := p[key]
	if !ok {
		return nil
	}
	delete(p, key)
	if err := json.Unmarshal(text, to); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// Keys returns the keys in alphabetical order.
func (p Patch) Keys() []string { return slices.Sorted(maps.Keys(p)) }

// Merge returns a copy of a settings struct with those of the patch's keys that it has, and
// removes them from the patch. It checks each value by its field, not the struct as a whole.
// An error names the key; the patch is then partly consumed.
func Merge(former any, p Patch) (any, error) {
	t := reflect.TypeOf(former)
	to := reflect.New(t)
	to.Elem().Set(reflect.ValueOf(former))
	given := make(map[string]bool)
	for _, f := range Fields(former) {
		text, ok := p[f.Key]
		if !ok {
			continue
		}
		delete(p, f.Key)
		given[f.Key] = true
		if err := f.merge(to.Elem().FieldByIndex(f.index), text); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Key, err)
		}
	}
	if len(given) > 0 {
		if m, ok := to.Interface().(Merged); ok {
			m.AfterMerge(former, func(key string) bool { return given[key] })
		}
	}
	return to.Elem().Interface(), nil
}

// Check returns what is wrong with a value in JSON.
func (s *Field) Check(text json.RawMessage) error { return s.merge(reflect.New(s.Type).Elem(), text) }

// merge sets v to the value of a JSON text.
func (s *Field) merge(v reflect.Value, text json.RawMessage) error {
	// A fresh value: list elements that text leaves out must not stay. In a map they stay,
	// and null removes a key (RFC 7396).
	fresh := reflect.New(s.Type)
	if s.Type.Kind() == reflect.Map {
		return s.mergeMap(v, text)
	}
	if !bytes.Equal(text, []byte("null")) && !s.unsets(text) {
		if err := json.Unmarshal(text, fresh.Interface()); err != nil {
			return s.jsonError(text, err)
		}
	}
	if err := s.check(fresh.Elem()); err != nil {
		return err
	}
	if s.Type.Kind() == reflect.Slice && fresh.Elem().Len() == 0 {
		fresh.Elem().SetZero() // an empty list means not set
	}
	v.Set(fresh.Elem())
	return nil
}

// unsets reports whether a JSON text, alone or in a list, is the word that unsets the setting. A setting whose
// JSON means something else than its flag has no such word.
func (s *Field) unsets(text json.RawMessage) bool {
	var list []string
	var word string
	if json.Unmarshal(text, &word) != nil {
		if json.Unmarshal(text, &list) != nil || len(list) != 1 {
			return false
		}
		word = list[0]
	}
	return s.schema == "" && s.Unsets(word)
}

// mergeMap merges a JSON object into a map of texts.
func (s *Field) mergeMap(v reflect.Value, text json.RawMessage) error {
	if bytes.Equal(text, []byte("null")) {
		v.SetZero()
		return nil
	}
	var change map[string]*string
	if err := json.Unmarshal(text, &change); err != nil {
		return fmt.Errorf("%s is not an object of texts", excerpt(text))
	}
	merged := reflect.MakeMap(s.Type)
	for _, key := range v.MapKeys() {
		merged.SetMapIndex(key, v.MapIndex(key))
	}
	for key, value := range change {
		if value == nil {
			merged.SetMapIndex(reflect.ValueOf(key), reflect.Value{})
			continue
		}
		merged.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(*value))
	}
	if merged.Len() == 0 {
		merged = reflect.Zero(s.Type)
	}
	v.Set(merged)
	return nil
}

// jsonError rewords an error of encoding/json for users, who know no Go types.
func (s *Field) jsonError(text json.RawMessage, err error) error {
	if e, ok := err.(*json.UnmarshalTypeError); ok {
		if s.number() && e.Value != "string" && e.Value != "bool" && e.Value != "object" && e.Value != "array" {
			return s.OutOfRange(excerpt(text))
		}
		return fmt.Errorf("%s is not %s", excerpt(text), article(s.Schema().Type))
	}
	return err
}

// excerpt returns a value for an error, in which a long one has no room.
func excerpt(text json.RawMessage) string {
	const most = 60
	if len(text) <= most {
		return string(text)
	}
	return strings.ToValidUTF8(string(text[:most]), "") + "…"
}

// Plain rewords an error of encoding/json about a whole document for users, who know no Go types.
func Plain(err error) error {
	if before, key, ok := strings.Cut(err.Error(), "json: unknown field "); ok {
		return errors.New(before + "there is no key " + key)
	}
	var e *json.UnmarshalTypeError
	if !errors.As(err, &e) {
		return err
	}
	of := "an object"
	switch e.Type.Kind() {
	case reflect.String:
		of = "a string"
	case reflect.Bool:
		of = "true or false"
	case reflect.Slice, reflect.Array:
		of = "an array"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		of = "an integer"
	}
	found := e.Value // such as number 1.5, or number
	switch {
	case found == "bool":
		found = "true or false"
	case !strings.HasPrefix(found, "number "):
		found = article(found)
	}
	plain := fmt.Sprintf("there is %s in place of %s", found, of)
	if n, ok := strings.CutPrefix(found, "number "); ok && !strings.ContainsAny(n, ".eE") {
		plain = n + " is out of range"
	}
	if at := strings.ToLower(e.Field); at != "" {
		plain = fmt.Sprintf("%s: %s", at, plain)
	}
	return errors.New(strings.Replace(err.Error(), e.Error(), plain, 1))
}

func article(typ string) string {
	switch typ {
	case "integer", "array", "object":
		return "an " + typ
	case "boolean":
		return "true or false"
	}
	return "a " + typ
}
