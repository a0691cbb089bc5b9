package setting

import (
	"bytes"
	"encoding/json"
	"fmt"
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
