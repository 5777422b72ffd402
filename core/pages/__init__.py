"""The dashboard's pages: Streamlit over `core.views`, which has every figure shown here."""

from core.pages.shell import show

__all__ = ["show"]
