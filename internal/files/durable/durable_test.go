package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vswitch/vswitch/internal/files/durable"
	"github.com/vswitch/vswitch/internal/files/durable/durabletest"
)

func TestReplacedFileOutlivesAPowerCut(t *testing.T) {
	const path = "/state/state.json"
	d := durabletest.New(map[string]string{path: "old", "/state/other": "x"})
	if err := durable.Replace(d, path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got := d.AfterPowerCut(path); !slices.Equal(got, []string{"new"}) {
		t.Errorf("after a power cut the file has one of %q; steps %q", got, d.Steps)
	}
	for failAt := 1; failAt <= len(d.Steps); failAt++ {
		d := durabletest.New(map[string]string{path: "old"})
		d.FailAt = failAt
		if err := durable.Replace(d, path, []byte("new")); err == nil {
			t.Errorf("step %q fails, and no error", d.Steps)
		}
		for _, got := range d.AfterPowerCut(path) {
			if got != "old" && got != "new" {
				t.Errorf("after %q fails and a power cut the file can have %q", d.Steps, got)
			}
		}
		if d.Has(path + ".new") {
			t.Errorf("after %q fails the new file is left", d.Steps)
		}
		d.FailAt = 0
		if err := durable.Replace(d, path, []byte("newer")); err != nil || !slices.Equal(d.AfterPowerCut(path), []string{"newer"}) {
			t.Errorf("the next try: %v, %q", err, d.AfterPowerCut(path))
		}
	}
}

// A directory whose parent is a link to nowhere, as to a disk that is not mounted, cannot be made, nor one in /proc.
func TestDirectoryThatCannotBe(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(link, "a"), filepath.Join(link, "a", "b"), "/proc/none/a"} {
		if err := durable.MkdirAll(durable.Host{}, dir, 0o700); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// A directory that is made is there after a power cut: what leads to it is synced.
func TestMadeDirectoryIsSynced(t *testing.T) {
	dir := t.TempDir()
	d := durabletest.New(nil)
	for range 2 {
		if err := durable.MkdirAll(d, filepath.Join(dir, "a", "b"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"sync " + dir, "sync " + filepath.Join(dir, "a")}; !slices.Equal(d.Steps, want) {
		t.Errorf("steps %q, want %q", d.Steps, want)
	}
	d.FailAt = len(d.Steps) + 1
	if err := durable.MkdirAll(d, filepath.Join(dir, "c"), 0o700); err == nil {
		t.Error("no error where the sync fails")
	}
}
