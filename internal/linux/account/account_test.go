package account

import (
	"strings"
	"testing"
)

func TestAccounts(t *testing.T) {
	for name, find := range map[string]func(string) (int, error){"user": User, "group": Group} {
		for s, want := range map[string]int{"root": 0, "0": 0, "1000": 1000, "4294967294": 4294967294} {
			if got, err := find(s); err != nil || got != want {
				t.Errorf("%s %q: %d, %v", name, s, got, err)
			}
		}
		for _, s := range []string{"", "nosuch-account", "-1", "4294967295", "99999999999", "root ", "0x0"} {
			if got, err := find(s); err == nil || !strings.Contains(err.Error(), "there is no "+name) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %q: %d, %v", name, s, got, err)
			}
		}
	}
}
