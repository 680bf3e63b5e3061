def enable_custom_widget_manager():
    print("Widgets of other packages are enabled.")
