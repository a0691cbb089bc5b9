package durable_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/vswitch/vswitch/internal/files/durable"
)

// What somebody puts where the new file is made is never written: the content would go elsewhere.
func TestReplaceWritesNothingElse(t *testing.T) {
	for name, put := range map[string]func(victim, at string) error{
		"symbolic link": os.Symlink,
		"dangling link": func(_, at string) error { return os.Symlink("nowhere", at) },
		"hard link":     os.Link,
		"FIFO":          func(_, at string) error { return syscall.Mkfifo(at, 0o600) },
		"file":          func(_, at string) error { return os.WriteFile(at, []byte("left by a crash"), 0o400) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "state.json")
			if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := put(victim, path+".new"); err != nil {
				t.Fatal(err)
			}
			if err := durable.Replace(durable.Host{}, path, []byte("state")); err != nil {
				t.Fatal(err)
			}
			for at, want := range map[string]string{victim: "precious", path: "state"} {
				if b, err := os.ReadFile(at); string(b) != want || err != nil {
					t.Errorf("%s has %q, %v", at, b, err)
				}
			}
			if _, err := os.Lstat(filepath.Join(dir, "nowhere")); err == nil {
				t.Error("the file is made where a link leads")
			}
			if i, err := os.Lstat(path); err != nil || !i.Mode().IsRegular() || i.Mode().Perm() != 0o600 {
				t.Errorf("the file is %v, %v", i, err)
			}
		})
	}
}
