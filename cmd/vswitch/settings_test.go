package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/setting"
)

// A default that help writes as one word is a value that the flag takes.
func TestDefaultsAreValues(t *testing.T) {
	fields := switchFields()
	for _, s := range portCatalog().Settings() {
		fields = append(fields, s.Field)
	}
	for _, f := range features {
		for _, c := range f.Commands {
			if c.Flags != nil {
				fields = append(fields, setting.Fields(c.Flags)...)
			}
		}
		for _, r := range f.Routes {
			if r.Query != nil {
				fields = append(fields, setting.Fields(r.Query)...)
			}
		}
	}
	tried := 0
	for _, f := range fields {
		if f.Default == "" || strings.Contains(f.Default, " ") || strings.HasPrefix(f.Default, "--") {
			continue // words about it
		}
		tried++
		texts := []string{f.Default}
		if f.List() {
			texts = strings.Split(f.Default, ",")
		}
		got, err := f.ReadFlag(texts...)
		if err == nil {
			err = f.Check(got)
		}
		if err != nil {
			t.Errorf("--%s %s: %v", f.Flag, f.Default, err)
		}
		if unset, _ := f.ReadFlag(""); f.Unsets(f.Default) && string(got) != string(unset) {
			t.Errorf("--%s %s is %s, not %s", f.Flag, f.Default, got, unset)
		}
	}
	if tried < 30 {
		t.Errorf("only %d defaults are values", tried)
	}
}

// In JSON, too, the word that help has for none unsets a setting, alone or in a list.
func TestNoneUnsets(t *testing.T) {
	var peers setting.Field
	for _, s := range portCatalog().Settings() {
		if s.Key == "peers" {
			peers = s.Field
		}
	}
	for _, text := range []string{`"none"`, `["none"]`, `[]`, `null`} {
		if err := peers.Check(json.RawMessage(text)); err != nil {
			t.Errorf("peers %s: %v", text, err)
		}
	}
	all := portCatalog()
	spec, err := all.Read("up0", "vxlan", setting.Patch{"local": json.RawMessage(`"192.0.2.1"`), "vni": json.RawMessage(`"100"`), "peers": json.RawMessage(`["none"]`)})
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(spec); slices.Contains(strings.Split(string(b), `"`), "peers") {
		t.Errorf("peers are set: %s", b)
	}
}
