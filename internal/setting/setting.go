// Package setting makes a tagged struct the only description of settings. A setting is one
// field; its flag, help, completion, JSON, schema, checks and merging follow from the field's
// tags and type. Everything here is a pure function of types and values and may be called
// from any goroutine; nothing here knows a port or a switch.
//
// The tags of a field:
//
//	json     its key in JSON, which never changes; a field with "-" is no setting
//	flag     its flag; by default the key with '-' for '_'
//	short    one letter that stands for the flag
//	arg      the name of the flag's value in help, such as RATE
//	help     what it does, in a few words
//	default  the value that applies when it is not set, for help
//	min,max  the range of a number; 0 is always allowed and unsets it
//	fixed    "true": it is chosen at creation and cannot change
//	file     "true": a path, which may be relative on the command line
//	schema   what its JSON means, if that differs from the flag
//
// A field with the zero value is not set; a number whose 0 has a meaning is a pointer. Where
// tags do not suffice, a type has methods: see Enum, FlagReader and Merged.
package setting

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Enum is a type with few values. The empty text is not among them: it means that the setting
// is not set.
type Enum interface{ Values() []string }

// FlagReader is a type whose flag syntax differs from its JSON.
type FlagReader interface{ ReadFlag(text string) error }

// FlagEnum is a type whose flag has other values than its JSON.
type FlagEnum interface{ FlagValues() []string }

// FlagWriter is a type that formats its JSON value in flag syntax.
type FlagWriter interface{ FlagText(value any) string }

// FlagsReader is a type whose flag may be repeated and whose flag syntax differs from its
// JSON. ReadFlags returns the JSON that merges the given values.
type FlagsReader interface {
	ReadFlags(texts []string) (json.RawMessage, error)
}

// Merged is a settings struct in which one setting depends on another. AfterMerge is called
// on a pointer to the merged struct, with the former struct and the merged keys.
type Merged interface {
	AfterMerge(former any, given func(key string) bool)
}

// Field is one setting.
type Field struct {
	Key      string // in JSON
	Flag     string // on the command line, without dashes
	Short    string // one letter that stands for it; empty: none
	Arg      string // name of its value in help; empty for a switch that is on or off
	Help     string
	Default  string
	Values   []string // allowed values of it or of each element; nil: any
	Complete []string // values to complete its flag with
	Min      int64    // of a number
	Max      uint64
	Fixed    bool
	File     bool

	Type    reflect.Type
	index   []int
	schema  string
	bounded bool // a tag set Max
}

// Fields returns the settings of a struct in the order of its fields, those of an embedded
// struct in its place. It panics on an invalid tag, a programming error that any test finds.
func Fields(of any) []Field {
	t := reflect.TypeOf(of)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	all, ok := known.Load(t)
	if !ok {
		all, _ = known.LoadOrStore(t, fieldsOf(t))
	}
	return slices.Clone(all.([]Field))
}

// known are the fields of the types seen so far: a type never changes.
var known sync.Map

func fieldsOf(t reflect.Type) (all []Field) {
	for _, f := range reflect.VisibleFields(t) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || key == "-" || !f.IsExported() {
			continue
		}
		if key == "" || f.Tag.Get("help") == "" {
			panic(fmt.Sprintf("setting: field %s of %s needs the tags json and help", f.Name, t))
		}
		all = append(all, newField(f, key))
	}
	return all
}

func newField(f reflect.StructField, key string) Field {
	s := Field{
		Key: key, Flag: strings.ReplaceAll(key, "_", "-"),
		Short: f.Tag.Get("short"), Arg: f.Tag.Get("arg"), Help: f.Tag.Get("help"), Default: f.Tag.Get("default"), schema: f.Tag.Get("schema"),
		Fixed: f.Tag.Get("fixed") == "true", File: f.Tag.Get("file") == "true",
		Type: f.Type, index: f.Index,
	}
	if flag := f.Tag.Get("flag"); flag != "" {
		s.Flag = flag
	}
	if e, ok := reflect.Zero(f.Type).Interface().(Enum); ok {
		s.Values, s.Complete = e.Values(), e.Values()
	}
	if e, ok := reflect.Zero(f.Type).Interface().(FlagEnum); ok {
		s.Complete = e.FlagValues()
	}
	switch t := s.base(); {
	case s.isText():
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		s.Min, s.Max = math.MinInt64, math.MaxInt64
		if bits := t.Bits(); bits < 64 {
			s.Min, s.Max = -1<<(bits-1), 1<<(bits-1)-1
		}
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		s.Max = math.MaxUint64 >> (64 - t.Bits())
	}
	s.bound(f)
	return s
}

// bound applies the tags min and max.
func (s *Field) bound(f reflect.StructField) {
	if text, ok := f.Tag.Lookup("min"); ok {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			panic(fmt.Sprintf("setting: min of %s: %v", s.Key, err))
		}
		s.Min = n
	}
	if text, ok := f.Tag.Lookup("max"); ok {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			panic(fmt.Sprintf("setting: max of %s: %v", s.Key, err))
		}
		s.Max, s.bounded = n, true
	}
}

// Bool reports whether the setting is on or off, so that its flag needs no value.
func (s *Field) Bool() bool { return s.Type.Kind() == reflect.Bool && !s.readsFlag() }

// List reports whether the flag may be repeated, once for each value.
func (s *Field) List() bool {
	_, several := reflect.Zero(s.Type).Interface().(FlagsReader)
	return several || s.Type.Kind() == reflect.Slice && !s.readsFlag()
}

// base returns the field's type, for a number without its pointer.
func (s *Field) base() reflect.Type {
	if s.Type.Kind() == reflect.Pointer {
		return s.Type.Elem()
	}
	return s.Type
}

func (s *Field) number() bool {
	k := s.base().Kind()
	return !s.isText() && k >= reflect.Int && k <= reflect.Uint64
}

// isText reports whether the type implements text marshaling.
func (s *Field) isText() bool {
	return reflect.PointerTo(s.Type).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func (s *Field) readsFlag() bool {
	return reflect.PointerTo(s.Type).Implements(reflect.TypeFor[FlagReader]())
}

// FlagText formats a value that encoding/json has read in the flag's syntax.
func (s *Field) FlagText(v any) string {
	if w, ok := reflect.Zero(s.Type).Interface().(FlagWriter); ok {
		return w.FlagText(v)
	}
	switch v := v.(type) {
	case bool:
		if v {
			return "on"
		}
		return "off"
	case []any:
		var all []string
		for _, e := range v {
			all = append(all, fmt.Sprint(e))
		}
		return strings.Join(all, " --"+s.Flag+" ")
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// Get returns the field's value in a struct or in a pointer to one.
func (s *Field) Get(of any) any { return s.in(of).Interface() }

// IsZero reports whether the setting is not set.
func (s *Field) IsZero(of any) bool { return s.in(of).IsZero() }

func (s *Field) in(of any) reflect.Value {
	v := reflect.ValueOf(of)
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return v.FieldByIndex(s.index)
}

// Unsets reports whether a text stands for no value, because it is the default that help names: none or all.
func (s *Field) Unsets(text string) bool {
	return text == s.Default && (text == "none" || text == "all")
}

// ReadFlag reads the values given to a flag and returns them as JSON.
func (s *Field) ReadFlag(texts ...string) (json.RawMessage, error) {
	for _, text := range texts {
		switch {
		case !utf8.ValidString(text):
			return nil, fmt.Errorf("%q is no text in UTF-8; write it in letters that are", text) // JSON would make another of it
		case s.File && strings.ContainsFunc(text, unicode.IsControl):
			return nil, fmt.Errorf("%q has a character that cannot be printed; name another path", text)
		}
	}
	if len(texts) == 1 && s.Unsets(texts[0]) {
		texts = []string{""}
	}
	if r, ok := reflect.Zero(s.Type).Interface().(FlagsReader); ok {
		return r.ReadFlags(texts)
	}
	v := reflect.New(s.Type)
	if err := s.read(v, texts); err != nil {
		return nil, err
	}
	if err := s.check(v.Elem()); err != nil {
		return nil, err
	}
	return json.Marshal(v.Interface())
}

// read sets the value that v points to.
func (s *Field) read(v reflect.Value, texts []string) error {
	if s.List() {
		list := reflect.MakeSlice(s.Type, 0, len(texts)) // not nil, which would be null in JSON
		for _, text := range texts {
			if text == "" {
				continue
			}
			one := reflect.New(s.Type.Elem())
			if t, ok := one.Interface().(encoding.TextUnmarshaler); !ok {
				one.Elem().SetString(text)
			} else if err := t.UnmarshalText([]byte(text)); err != nil {
				return err
			}
			list = reflect.Append(list, one.Elem())
		}
		v.Elem().Set(list)
		return nil
	}
	text := texts[len(texts)-1]
	switch p := v.Interface().(type) {
	case FlagReader:
		return p.ReadFlag(text)
	case encoding.TextUnmarshaler:
		if text == "" {
			return nil
		}
		return p.UnmarshalText([]byte(text))
	}
	switch {
	case s.Type.Kind() == reflect.Bool:
		on, err := ParseBool(text)
		v.Elem().SetBool(on)
		return err
	case s.number():
		return s.readNumber(v.Elem(), text)
	case s.File && text != "":
		// Only the user's process knows the user's working directory.
		abs, err := filepath.Abs(text)
		v.Elem().SetString(abs)
		return err
	default:
		v.Elem().SetString(text)
		return nil
	}
}

func (s *Field) readNumber(v reflect.Value, text string) (err error) {
	if text == "" {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if digits := strings.TrimLeft(text, "+-"); len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		return fmt.Errorf("%q can be read as octal; write it without the 0 in front", text)
	}
	if v.CanInt() {
		var n int64
		if n, err = strconv.ParseInt(text, 0, 64); err == nil && !v.OverflowInt(n) {
			v.SetInt(n)
			return nil
		}
	} else {
		var n uint64
		if n, err = strconv.ParseUint(text, 0, 64); err == nil && !v.OverflowUint(n) {
			v.SetUint(n)
			return nil
		}
	}
	if _, err := strconv.ParseInt(text, 0, 64); err != nil && !isRange(err) {
		return fmt.Errorf("%q is not a whole number; write one such as %d", text, max(s.Min, 1))
	}
	return s.OutOfRange(text)
}

func isRange(err error) bool {
	e, ok := err.(*strconv.NumError)
	return ok && e.Err == strconv.ErrRange
}

// OutOfRange is the error of a number that the field cannot have.
func (s *Field) OutOfRange(value any) error {
	if !s.bounded && s.Max > math.MaxUint32 {
		return fmt.Errorf("%v is out of range; use %d or more", value, s.Min)
	}
	return fmt.Errorf("%v is out of range; use %d to %d", value, s.Min, s.Max)
}

// check returns what is wrong with a value that was read.
func (s *Field) check(v reflect.Value) error {
	if v.IsZero() {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() == reflect.Slice {
		if err := Twice(v.Interface()); err != nil {
			return err
		}
	}
	switch {
	case s.number() && v.CanInt():
		if n := v.Int(); n < s.Min || n > 0 && uint64(n) > s.Max {
			return s.OutOfRange(n)
		}
	case s.number():
		if n := v.Uint(); s.Min > 0 && n < uint64(s.Min) || n > s.Max {
			return s.OutOfRange(n)
		}
	case s.Values != nil && v.Kind() == reflect.String:
		return s.checkValue(v)
	case s.Values != nil && v.Kind() == reflect.Slice:
		for i := range v.Len() {
			if err := s.checkValue(v.Index(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Twice returns an error if a list, a slice of comparable values, has a value twice: one of them was most
// likely meant to be another.
func Twice(list any) error {
	v, seen := reflect.ValueOf(list), make(map[any]bool)
	for i := range v.Len() {
		one := v.Index(i).Interface()
		if seen[one] {
			return fmt.Errorf("%v is there twice; name it once", one)
		}
		seen[one] = true
	}
	return nil
}

func (s *Field) checkValue(v reflect.Value) error {
	if slices.Contains(s.Values, v.String()) {
		return nil
	}
	return fmt.Errorf("there is no %q; use %s", v.String(), strings.Join(s.Values, ", "))
}

// ParseBool reads on or off, and the forms users write for them.
func ParseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "on", "true", "yes", "1":
		return true, nil
	case "off", "false", "no", "0", "":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither; use on or off", text)
}
